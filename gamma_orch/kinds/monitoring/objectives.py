"""What is wrong with the indicator of an SLO: its expressions, and the metrics that they name. Pure; called
through `Kind.check`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.monitoring import collecting, promql
from gamma_orch.kinds.monitoring.collecting import Shown
from gamma_orch.kinds.monitoring.rules import EXPRESSION, UNKNOWN, unknown

All = Mapping[Address, Resource]


def slos(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    there = collecting.everywhere(everything, resources)
    for resource in resources:
        found = _faults(resource.spec["indicator"], there[resource.spec["prometheus"]])
        for code, path, message, hint in found:
            yield Diagnostic(code, message, path=path, address=resource.address, hint=hint)


def _faults(indicator: Json, there: Shown) -> Iterator[tuple[str, Path, str, str]]:
    at: Path = ("spec", "indicator")
    if (latency := indicator["latency"]) is not None:
        for says, hint in unknown([f"{latency['metric']}_bucket"], there):
            yield UNKNOWN, (*at, "latency", "metric"), says, hint
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
        for says, hint in unknown(parsed.metrics, there):
            yield UNKNOWN, (*at, name), says, hint
