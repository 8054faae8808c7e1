"""`metrics_of`: the statistics of a server as metrics of Prometheus. Nothing here waits.

The names of requests follow OpenTelemetry's semantic conventions for RPC, as Prometheus writes them: the metric
``rpc.server.call.duration`` in seconds, and the attributes ``rpc.system.name``, ``rpc.method``, ``rpc.status_code`` and
``error.type``. All other names begin with ``asyncapy_``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from asyncapy_core import __version__

if TYPE_CHECKING:
    import trio
    from prometheus_client.core import Metric

    from asyncapy_core import Durations, HandlerStatistics, ServerStatistics

SYSTEM: Final = "asyncaproto"
"""The value of ``rpc_system_name``."""

SUCCEEDED: Final = "ok"
NO_ERRORS: Final = frozenset({SUCCEEDED, "cancelled", "disconnected"})
"""The outcomes that have no ``error_type``: the server has not failed if a client has left."""

OTHER: Final = "_OTHER"
"""The ``rpc_method`` of the handlers beyond `MAX_METHODS`, as in OpenTelemetry's conventions."""

MAX_METHODS: Final = 1000
MAX_CHARACTERS: Final = 128
"""The most characters of the value of a label."""

BOUNDS: Final = tuple(2**power / 1e9 for power in range(13, 35))
"""The upper bounds of durations, from 8 us to 17 s: those of core's buckets, so that no duration is counted wrongly."""


@dataclass(slots=True)
class Calls:
    """The requests of all handlers of one name that had one outcome.

    Attributes:
        count: the number of requests.
        measured: the number of those with a duration.
        total: the sum of the durations, in seconds.
        buckets: the number of durations by their upper bound.
    """

    count: int = 0
    measured: int = 0
    total: float = 0.0
    buckets: Counter[float] = field(default_factory=Counter)

    def add(self, durations: Durations) -> None:
        """Add the durations of a handler."""
        self.measured += durations.count
        self.total += durations.total
        self.buckets.update(durations.buckets)

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the buckets of a histogram: for each bound, the number of durations up to it."""
        counted = [(str(most), sum(self.buckets[each] for each in self.buckets if each <= most)) for most in BOUNDS]
        return [*counted, ("+Inf", self.measured)]


def metrics_of(now: ServerStatistics, threads: trio.CapacityLimiterStatistics) -> Iterator[Metric]:
    """Yield the metrics of a server. Those of the same name that follow each other are parts of one metric.

    Args:
        now: the server at this moment.
        threads: the limiter of threads at this moment.
    """
    yield _gauge("asyncapy_build_info", "The version of asyncapy-core.", {__version__: 1}, "version")
    yield from _requests(calls_by_method(now.handlers))
    yield _refusals(now)
    yield from _sessions(now)
    yield from _bytes(now)
    yield _gauge("asyncapy_deadlines", "Peers that are waited for: for a packet, for room, or a close.", now.deadlines)
    yield _gauge("asyncapy_threads", "Threads of trio's default limiter in use.", threads.borrowed_tokens)
    yield _gauge("asyncapy_threads_limit", "Threads that this limiter allows.", threads.total_tokens)
    yield _gauge("asyncapy_threads_waiting", "Tasks that wait for such a thread.", threads.tasks_waiting)


def calls_by_method(handlers: Iterable[HandlerStatistics]) -> dict[str, dict[str, Calls]]:
    """Return the requests by name of their handler, and by outcome; each name has the outcome ``"ok"``."""
    methods: dict[str, dict[str, Calls]] = {}
    for handler in handlers:
        name = label_value(handler.name)
        if name not in methods and len(methods) >= MAX_METHODS:
            name = OTHER
        outcomes = methods.setdefault(name, {SUCCEEDED: Calls()})
        for outcome, count in handler.outcomes.items():
            outcomes.setdefault(label_value(outcome), Calls()).count += count
        for outcome, durations in handler.durations.items():
            outcomes.setdefault(label_value(outcome), Calls()).add(durations)
    return methods


def label_value(name: object) -> str:
    """Return a name as the value of a label: printable characters, the others escaped, at most `MAX_CHARACTERS`."""
    text = str(name)[:MAX_CHARACTERS]
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)[:MAX_CHARACTERS]


def _requests(methods: dict[str, dict[str, Calls]]) -> Iterator[Metric]:
    names = ("rpc_method", "rpc_status_code", "error_type")
    for method, outcomes in methods.items():
        requests = CounterMetricFamily("asyncapy_requests", "Requests that reached a handler.", labels=names)
        for outcome, calls in outcomes.items():
            requests.add_metric((method, outcome, _error_type(outcome)), calls.count)
        yield requests
    for method, outcomes in methods.items():
        durations = HistogramMetricFamily(
            "rpc_server_call_duration_seconds",
            "Measures the duration of an incoming Remote Procedure Call (RPC).",
            labels=("rpc_system_name", *names),
        )
        for outcome, calls in outcomes.items():
            if calls.measured:
                durations.add_metric(
                    (SYSTEM, method, outcome, _error_type(outcome)), calls.cumulative(), sum_value=calls.total
                )
        if durations.samples:
            yield durations


def _error_type(outcome: str) -> str:
    """Return the error of an outcome. Prometheus does not distinguish an empty label from none."""
    return "" if outcome in NO_ERRORS else outcome


def _refusals(now: ServerStatistics) -> Metric:
    refusals = CounterMetricFamily(
        "asyncapy_refusals", "Packets and connections that reached no handler.", labels=("rpc_status_code",)
    )
    codes: Counter[str] = Counter()
    for code, count in now.refusals.items():
        codes[label_value(code)] += count
    for code, count in codes.items():
        refusals.add_metric((code,), count)
    return refusals


def _sessions(now: ServerStatistics) -> Iterator[Metric]:
    yield _gauge("asyncapy_sessions", "Open sessions.", now.sessions)
    yield _counter("asyncapy_sessions_opened", "Sessions that have sent a byte.", now.sessions_opened)
    states = {
        "open": now.connections - now.closing,
        "closing": now.closing,
        "refused": now.refused,
        "abandoned": now.abandoned,
        "handshake": now.handshakes,
    }
    yield _gauge("asyncapy_connections", "Connections by state.", states, "state")


def _bytes(now: ServerStatistics) -> Iterator[Metric]:
    yield _counter("asyncapy_received_bytes", "Bytes of packets received, after TLS.", now.bytes_received)
    yield _counter("asyncapy_sent_bytes", "Bytes of packets sent, before TLS.", now.bytes_sent)
    yield _gauge("asyncapy_buffered_bytes", "Bytes of packets that are not complete.", now.bytes_incomplete)
    yield _gauge("asyncapy_queued_bytes", "Bytes that wait for peers to read them.", now.bytes_queued)


def _counter(name: str, description: str, value: float) -> Metric:
    return CounterMetricFamily(name, description, value=value)


def _gauge(name: str, description: str, values: float | dict[str, int], label: str = "") -> Metric:
    """Return a gauge with one value, or with values by a label."""
    if not isinstance(values, dict):
        return GaugeMetricFamily(name, description, value=values)
    gauge = GaugeMetricFamily(name, description, labels=(label,))
    for each, value in values.items():
        gauge.add_metric((each,), value)
    return gauge
