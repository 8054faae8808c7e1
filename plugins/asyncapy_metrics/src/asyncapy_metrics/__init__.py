"""Metrics of AsyncAPY servers, for Prometheus: the plugin ``metrics``, which is configured by its options."""

__all__: list[str] = []
