"""What is wrong with a dashboard, found before anything runs: its expressions, the metrics in them, what its
legends and variables name. Pure; called through `Kind.check`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path, Severity, did_you_mean
from gamma_orch.core.resource import Resource
from gamma_orch.dashboards.asking import used
from gamma_orch.kinds.monitoring import collecting, promql
from gamma_orch.kinds.monitoring.collecting import Shown
from gamma_orch.kinds.monitoring.rules import unknown

EXPRESSION = "GAM931"  # no PromQL, or not of a type that a panel can show
UNKNOWN = "GAM932"  # a metric that nobody exposes
UNDECLARED = "GAM933"  # a variable that the dashboard does not have
UNUSED = "GAM934"  # a variable that nothing asks with
VANISHED = "GAM935"  # a legend's label that the result does not have

_FILLED = re.compile(r"{{\s*([a-zA-Z_]\w*)\s*}}")

All = Mapping[Address, Resource]
Found = tuple[str, str, Path, str, Severity]


def dashboards(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    there = collecting.everywhere(everything, resources)
    for resource in resources:
        for code, says, path, hint, severity in _faults(resource.spec, there[resource.spec["prometheus"]]):
            at = ("spec", *path)
            yield Diagnostic(code, says, path=at, address=resource.address, hint=hint, severity=severity)


def _faults(spec: Json, there: Shown) -> Iterator[Found]:
    names = [one["name"] for one in spec["variables"]]
    asked: set[str] = set()
    for expr, legend, path in _asked(spec):
        try:
            parsed = promql.parsed(expr)
        except promql.BadExpression as error:
            says = f"this is no expression of a panel: {error}"
            hint = 'a variable stands in a matcher alone: {label=~"$name"}' if "$" in expr else ""
            yield EXPRESSION, says, path, hint, Severity.ERROR
            continue
        for says, hint in unknown(parsed.metrics, there):
            yield UNKNOWN, says, path, hint, Severity.ERROR
        for name in sorted(used(expr) - set(names)):
            hint = did_you_mean(name, names) or "declare it under `variables`"
            yield UNDECLARED, f"the dashboard has no variable {name!r}", path, hint, Severity.ERROR
        asked |= used(expr)
        for name in _FILLED.findall(legend):
            if not parsed.labels.has(name):
                says = f"its series have no label {name!r}: the expression leaves it out"
                hint = f"keep it in the expression: by ({name})"
                place = (*path[:-1], "legend")
                yield VANISHED, says, place, hint, Severity.ERROR
    for number, one in enumerate(spec["variables"]):
        yield from _of_variable(one, number, there)
        if one["name"] not in asked and asked <= set(names):  # else it is the one that was misspelled
            says, hint = f"no panel asks with ${one['name']}", f'write {one["label"]}=~"${one["name"]}"'
            yield UNUSED, says, ("variables", number), hint, Severity.WARNING


def _of_variable(said: Json, number: int, there: Shown) -> Iterator[Found]:
    path = ("variables", number, "metric")
    try:
        parsed = promql.parsed(said["metric"])
    except promql.BadExpression as error:
        yield EXPRESSION, f"this is no selector of a metric: {error}", path, "", Severity.ERROR
        return
    for says, hint in unknown(parsed.metrics, there):
        yield UNKNOWN, says, path, hint, Severity.ERROR


def _asked(spec: Json) -> Iterator[tuple[str, str, Path]]:
    """Each expression, its legend, and where it stands."""
    for r, row in enumerate(spec["rows"]):
        for p, panel in enumerate(row["panels"]):
            place: Path = ("rows", r, "panels", p)
            if panel["expr"] is not None:
                yield panel["expr"], panel["legend"], (*place, "expr")
            for q, query in enumerate(panel["queries"]):
                yield query["expr"], query["legend"], (*place, "queries", q, "expr")
