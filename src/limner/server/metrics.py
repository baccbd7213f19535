"""What Prometheus may know: counts and times by route and model, never a prompt, a key or an address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from limner import __version__

TIMES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 4, 8, 16, 24, 32, 64)
LENGTHS = (5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560)
# A prompt's weight in the two running means whose distance is the drift.
FAST, SLOW = 1 / 100, 1 / 10_000

M = TypeVar("M", Counter, Gauge, Histogram)


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        gauge("build_info", "Version of limner.", "version").labels(__version__).set(1)
        self.requests = counter("requests_total", "Answers.", "route", "method", "status")
        self.seconds = histogram("request_seconds", "From the headers to the last byte.", TIMES, "route")
        self.in_flight = gauge("requests_in_flight", "Requests that are being answered.")
        self.connections = gauge("connections", "Open connections.")
        self.waiting = gauge("queue_pictures", "Pictures accepted and not finished.", "task")
        self.queue = histogram("queue_seconds", "Wait of a picture for its batch or worker.", TIMES, "model")
        self.batch = histogram("batch_pictures", "Pictures painted together.", BATCHES, "model")
        self.stages = histogram("stage_seconds", "Work, by stage.", TIMES, "model", "stage")
        self.pictures = counter("pictures_total", "Pictures answered.", "model", "task")
        self.pixels = counter("pixels_total", "Pixels answered.", "model")
        self.rejected = counter("rejections_total", "Requests refused.", "reason")
        self.errors = counter("errors_total", "Faults of the server.", "kind")
        self.cancelled = counter("cancelled_total", "Requests whose client left.")
        self.load = gauge("model_load_seconds", "Loading and warming a model.", "model")
        self.up = gauge("model_up", "1: loaded; 0: failed to load, or still loading.", "model")
        self.ready = gauge("ready", "What /readyz says.")
        self.results = gauge("results_bytes", "Pictures kept for their URLs.")
        self.prompts = counter("prompts_total", "Prompts painted or refused.", "model")
        self.unfamiliar = counter("prompts_unfamiliar_total", "Prompts the text model warns about.", "model")
        self.flagged = counter("prompts_flagged_total", "Prompts the filter refused, by first category.", "category")
        self.length = histogram("prompt_characters", "Length of prompts.", LENGTHS)
        self._drift = gauge("prompt_drift", "Cosine distance of recent prompts' mean to the long one.", "model")
        self._means: dict[str, _Means] = {}
        self._lock = threading.Lock()

    def page(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self.registry)

    @contextmanager
    def stage(self, model: str, name: str) -> Iterator[None]:
        """Time a stage of work; one that fails is not counted."""
        start = perf_counter()
        yield
        self.stages.labels(model, name).observe(perf_counter() - start)

    def saw_prompt(self, model: str, prompt: str, pooled: NDArray[np.float32], unfamiliar: bool) -> None:
        """Count a prompt. `pooled`: its vector (width,), of which only running means are kept."""
        self.prompts.labels(model).inc()
        self.length.observe(len(prompt))
        if unfamiliar:
            self.unfamiliar.labels(model).inc()
        with self._lock:
            means = self._means.setdefault(model, _Means(pooled))
            means.take(pooled)
            self._drift.labels(model).set(means.distance())

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return _quick(Counter(f"limner_{name}", text, labels, registry=self.registry))

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return _quick(Gauge(f"limner_{name}", text, labels, registry=self.registry))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return _quick(Histogram(f"limner_{name}", text, labels, registry=self.registry, buckets=buckets))


def _quick(metric: M) -> M:
    """With its children found by a look-up; the client's own way, ten times a request, adds up."""
    metric.labels = cache(metric.labels)  # pyright: ignore[reportAttributeAccessIssue]
    return metric


class _Means:
    """Exponential means of the prompts' vectors, over about the last hundred and the last ten thousand."""

    def __init__(self, first: NDArray[np.float32]) -> None:
        self.fast = np.zeros(first.shape, np.float64)
        self.slow = np.zeros(first.shape, np.float64)
        self.count = 0

    def take(self, vector: NDArray[np.float32]) -> None:
        self.count += 1
        # Plain means until there are enough, so that the first prompts do not weigh most.
        self.fast += max(FAST, 1 / self.count) * (vector - self.fast)
        self.slow += max(SLOW, 1 / self.count) * (vector - self.slow)

    def distance(self) -> float:
        lengths = np.linalg.norm(self.fast) * np.linalg.norm(self.slow)
        return float(1 - self.fast @ self.slow / lengths) if lengths else 0.0
