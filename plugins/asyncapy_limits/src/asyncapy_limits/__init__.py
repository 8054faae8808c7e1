"""`Filters.Rate`, which limits the packets of each address, API key or other subject, as a plugin of asyncapy-core."""

from asyncapy_limits.rate import Rate

__all__ = ["Rate"]
