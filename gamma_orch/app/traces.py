"""Traces by OpenTelemetry, where a bundle asks for them: a span for each request, and in it one for each
thing that the request waited for.

Called by `policy`, which has one `Traces` as long as bundles ask for the same, and by `edge`, which marks the
steps of a request and ends its trace. Always:

- Where nobody asks for traces, nothing of OpenTelemetry is imported here, and a request costs nothing more.
- A span has no input, no key and no address: route, model, status, cache, tokens, and the id that the answer
  and the logs have too.
- Spans go out from a thread of their own, in batches. What the collector does not take is dropped.
- The caller's trace (`traceparent`) is gone on with. How many are kept is decided here: a caller that marks
  all of its requests does not fill the collector. What it does not keep itself is not kept here either.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gamma_orch.app import bundle

if TYPE_CHECKING:
    from gamma_orch.app.edge import Request

LATE = 5.0  # seconds that a collector has to take a batch
HEADERS = (b"traceparent", b"tracestate")


class Missing(Exception):
    """The libraries are not installed."""


class Trace:
    """The steps of one request, as they come; what is made of them is made at its end."""

    __slots__ = ("_since", "began", "headers", "steps")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.began = self._since = time.time_ns()
        self.headers = {name.decode(): value.decode("latin-1") for name, value in headers if name in HEADERS}
        self.steps: list[tuple[str, int, int]] = []

    def step(self, name: str) -> None:
        """What has been done since the last one, or since the request came."""
        now = time.time_ns()
        self.steps.append((name, self._since, now))
        self._since = now


class Traces:
    def __init__(self, settings: bundle.Traces, service: str) -> None:
        """Raises Missing."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise Missing(
                "Traces need the libraries of OpenTelemetry: pip install 'gamma-orch[traces]'."
            ) from None
        self.settings = settings
        share = TraceIdRatioBased(settings.sample)
        sampler = ParentBased(share, remote_parent_sampled=share, remote_parent_not_sampled=ALWAYS_OFF)
        self._provider = TracerProvider(sampler, Resource.create({"service.name": service}))
        exporter = OTLPSpanExporter(settings.endpoint, timeout=LATE)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("gamma_orch")
        self._context = TraceContextTextMapPropagator()

    def end(self, trace: Trace, request: "Request", method: str, status: int) -> None:
        """The request is over: its span, with its steps."""
        from opentelemetry import trace as api

        context = self._context.extract(trace.headers)
        span = self._tracer.start_span(
            f"{method} {request.route}", context, api.SpanKind.SERVER, start_time=trace.began
        )
        if not span.is_recording():
            return
        span.set_attributes(_attributes(request, method, status))
        if status >= 500:
            span.set_status(api.StatusCode.ERROR)
        inside = api.set_span_in_context(span)
        for name, since, until in trace.steps:
            self._tracer.start_span(name, inside, start_time=since).end(until)
        span.end()

    def close(self) -> None:
        """What waits is sent. Blocks, for some seconds at most."""
        self._provider.shutdown()


def _attributes(request: "Request", method: str, status: int) -> dict[str, Any]:
    """Names of the semantic conventions for HTTP and for generative models, where these have one."""
    found: dict[str, Any] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "http.route": request.route,
        "gamma.request_id": request.id,
    }
    if request.model:
        found["gen_ai.request.model"] = request.model
    if request.digest:
        found["gamma.model.digest"] = request.digest
    if request.cache:
        found["gamma.cache"] = request.cache
    if request.tokens_in:
        found["gen_ai.usage.input_tokens"] = request.tokens_in
        found["gen_ai.usage.output_tokens"] = request.tokens_out
    return found
