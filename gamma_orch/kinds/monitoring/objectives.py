"""What is wrong with the indicator of an SLO: its expressions, and the metrics that they name. Pure; called
through `Kind.check`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gamma_orch.app import exposed
from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path, did_you_mean
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.monitoring import promql
from gamma_orch.kinds.monitoring.rules import EXPRESSION, OURS, UNKNOWN

All = Mapping[Address, Resource]


def slos(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    for resource in resources:
        for code, path, message, hint in _faults(resource.spec["indicator"]):
            yield Diagnostic(code, message, path=path, address=resource.address, hint=hint)


def _faults(indicator: Json) -> Iterator[tuple[str, Path, str, str]]:
    at: Path = ("spec", "indicator")
    if (latency := indicator["latency"]) is not None:
        yield from _names((*at, "latency", "metric"), {f"{latency['metric']}_bucket"})
        return
    for name in ("total", "bad", "good"):
        if (text := indicator[name]) is None:
            continue
        try:
            parsed = promql.parsed(f"rate({text}[5m])")  # of a counter, and so of a selector
        except promql.BadExpression as error:
            hint = 'write a counter, with matchers where it needs some: requests_total{status=~"5.."}'
            yield EXPRESSION, (*at, name), f"this is no counter: {error}", hint
            continue
        yield from _names((*at, name), set(parsed.metrics))


def _names(path: Path, names: set[str]) -> Iterator[tuple[str, Path, str, str]]:
    for name in sorted(names):
        if name.startswith(OURS) and name not in exposed.SERIES:
            hint = did_you_mean(name, sorted(exposed.SERIES))
            yield UNKNOWN, path, f"nobody exposes the metric {name}", hint
