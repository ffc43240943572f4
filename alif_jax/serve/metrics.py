"""What /metrics tells, in Prometheus' text form. Counted per server, not per process: each `make_figures` has its own registry."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from alif_jax.serve.engine import Stats

# Seconds. A tiny model answers in milliseconds; a full queue makes a request wait for many minutes.
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class HasStats(Protocol):
    def stats(self) -> Stats: ...


@dataclass(frozen=True)
class Figures:
    """requests by endpoint and status; seconds of a request, until its first token, and of waiting for a place in the batch."""

    registry: CollectorRegistry
    requests: Counter
    duration: Histogram
    first_token: Histogram
    queue_time: Histogram

    def text(self) -> bytes:
        return prometheus_client.generate_latest(self.registry)


class _EngineFigures:
    """The engine's own counts, read when somebody asks."""

    def __init__(self, engine: HasStats) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats()
        yield GaugeMetricFamily("alif_requests_waiting", "Prompts that wait for a place in the batch", stats.waiting)
        yield GaugeMetricFamily("alif_requests_running", "Prompts being continued", stats.running)
        yield CounterMetricFamily("alif_prompt_tokens", "Tokens read", stats.prompt_tokens)
        yield CounterMetricFamily("alif_generated_tokens", "Tokens written", stats.generated_tokens)
        finished = CounterMetricFamily("alif_finished", "Prompts that ended, by reason", labels=["reason"])
        for reason, count in sorted(stats.finished.items()):
            finished.add_metric([reason], count)
        yield finished


def make_figures(engine: HasStats) -> Figures:
    registry = CollectorRegistry()
    registry.register(_EngineFigures(engine))
    return Figures(
        registry=registry,
        requests=Counter("alif_http_requests", "HTTP requests answered", ["endpoint", "status"], registry=registry),
        duration=Histogram(
            "alif_request_seconds", "From a request's head to the end of its reply", ["endpoint"], buckets=BOUNDS_S,
            registry=registry,
        ),
        first_token=Histogram(
            "alif_first_token_seconds", "From a prompt's arrival to its first token", buckets=BOUNDS_S, registry=registry
        ),
        queue_time=Histogram(
            "alif_queue_seconds", "From a prompt's arrival to its place in the batch", buckets=BOUNDS_S, registry=registry
        ),
    )  # fmt: skip
