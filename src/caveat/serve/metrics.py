"""What a service tells Prometheus: requests, latency, verdicts, scores, and what the monitor of the guard holds."""

import math
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from caveat.guard.verdict import REASONS
from caveat.serve.served import Answer, Served
from caveat.serve.watched import Watched

__all__ = ["Metrics"]

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one service, in a registry of their own."""

    def __init__(self, served: Served, watched: Watched | None, depth: Callable[[], int]) -> None:
        made = self._registry = CollectorRegistry()
        self._requests = Counter("caveat_requests", "Requests.", ("path", "status"), registry=made)
        self._seconds = Histogram(
            "caveat_request_seconds", "Seconds from a request's head to its answer.", ("path",), registry=made,
            buckets=SECONDS,
        )  # fmt: skip
        self._verdicts = Counter("caveat_verdicts", "Verdicts, by their reason.", ("reason",), registry=made)
        self._batch = Histogram("caveat_batch_rows", "Inputs in a pass of the network.", registry=made, buckets=ROWS)
        self._score = Histogram(
            "caveat_score", f"Scores ({served.score}); higher = less trustworthy.", registry=made,
            buckets=served.levels or (served.threshold,),
        )  # fmt: skip
        for reason in REASONS:
            self._verdicts.labels(reason)
        Gauge("caveat_threshold", "Scores above it are refused.", registry=made).set(served.threshold)
        Gauge("caveat_queue", "Requests that wait for the network.", registry=made).set_function(depth)
        Gauge("caveat_accepted_share", "Share of all inputs that were accepted.", registry=made).set_function(
            lambda: self._accepted / self._all if self._all else math.nan  # a share of nothing is no alarm
        )
        self._accepted, self._all = 0, 0
        if watched is not None:
            made.register(_Told(watched))

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request of a known path."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def verdicts(self, verdict: Answer) -> None:
        """Count the verdicts of a pass."""
        self._batch.observe(len(verdict))
        self._all += len(verdict)
        self._accepted += int(verdict.accepted.sum())
        for reason in verdict.reason.tolist():
            self._verdicts.labels(REASONS[reason]).inc()
        for score in verdict.score.tolist():
            if math.isfinite(score):
                self._score.observe(score)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)


class _Told(Collector):
    """What a monitor holds, looked at when it is asked for."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def collect(self) -> list[Metric]:
        """Its gauges."""
        state = self._watched.state
        alarmed = {alarm.watched for alarm in state.alarms}
        value = GaugeMetricFamily("caveat_monitor_e_value", "Evidence that something has changed.", labels=["claim"])
        needed = GaugeMetricFamily("caveat_monitor_alarm_at", "The e-value that raises an alarm.", labels=["claim"])
        alarm = GaugeMetricFamily("caveat_monitor_alarm", "1 where an alarm was raised; it stays.", labels=["claim"])
        seen = GaugeMetricFamily("caveat_monitor_seen", "Inputs or labels so far.", labels=["claim"])
        for name, bet in state.bets.items():
            value.add_metric([name], math.exp(min(bet.capital, 700)))
            needed.add_metric([name], float(f"{math.exp(bet.needed):.12g}"))  # 300, where the logarithm was rounded
            alarm.add_metric([name], float(name in alarmed))
            seen.add_metric([name], bet.seen)
        return [value, needed, alarm, seen]
