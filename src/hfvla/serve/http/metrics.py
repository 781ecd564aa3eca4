"""What Prometheus reads of a server: requests, times, batches, the queue, what was refused."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from hfvla.errors import MissingExtraError

__all__ = ["ServerMetrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServerMetrics:
    """Counters of one server in a registry of their own.

    Args:
        queue: returns how many requests wait for the model.

    Raises:
        MissingExtraError: prometheus_client is not installed.
    """

    def __init__(self, queue: Callable[[], int]) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise MissingExtraError("prometheus_client", "serve", "the HTTP server") from None
        self.registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self._library: Any = prometheus
        self.requests = prometheus.Counter(
            "hfvla_requests", "Requests that were answered.", ["path", "status"], registry=registry
        )
        self.seconds = prometheus.Histogram(
            "hfvla_request_seconds", "Seconds from a request's head to the end of its answer.", ["path"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.refused = prometheus.Counter(
            "hfvla_refused", "Requests that were refused before the model saw them.", ["reason"], registry=registry
        )
        self.dropped = prometheus.Counter(
            "hfvla_dropped", "Requests whose client left before the answer.", registry=registry
        )
        self.waited = prometheus.Histogram(
            "hfvla_queue_seconds", "Seconds that a request waited for the model.", buckets=_SECONDS, registry=registry
        )
        self.batches = prometheus.Histogram(
            "hfvla_batch_size", "Requests that were answered together.", buckets=_BATCHES, registry=registry
        )
        self.model = prometheus.Histogram(
            "hfvla_model_seconds", "Seconds of the model for one batch.", buckets=_SECONDS, registry=registry
        )
        self.tokens = prometheus.Counter("hfvla_tokens", "Tokens of conversations.", ["kind"], registry=registry)
        self.in_flight = prometheus.Gauge("hfvla_in_flight", "Requests that are being answered.", registry=registry)
        waiting = prometheus.Gauge("hfvla_queue_length", "Requests that wait for the model.", registry=registry)
        waiting.set_function(queue)

    def saw_batch(self, _: Hashable, size: int, seconds: float) -> None:
        """Count a batch that the model has answered."""
        self.batches.observe(size)
        self.model.observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """Return the page for Prometheus and its content type."""
        return self._library.generate_latest(self.registry), self._library.CONTENT_TYPE_LATEST
