"""What is wrong with a rule, found before anything runs: its expression, the names in it, the labels that its
texts fill in, and its own tests. Pure; called through `Kind.check`.

A rule's tests are evaluated here as Prometheus does it (`evaluate`). Where that cannot be done, it is said
that nobody knows.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from gamma_orch.app import exposed
from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path, Severity, did_you_mean
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.monitoring import alerting, collecting, promql, series
from gamma_orch.kinds.monitoring.collecting import Shown
from gamma_orch.kinds.monitoring.evaluate import NotEvaluated, Store
from gamma_orch.kinds.monitoring.rule_spec import expression
from gamma_orch.kinds.monitoring.series import Tags
from gamma_orch.spec.durations import duration, written_duration

EXPRESSION = "GAM901"  # no PromQL, or not of a type that a rule can have
UNKNOWN = "GAM902"  # a metric that nobody exposes
ALWAYS = "GAM903"  # it compares nothing
VANISHED = "GAM904"  # a label that the result does not have
FAILS = "GAM905"  # a test of its own
UNREADABLE = "GAM906"  # a test that cannot be read
NOT_EVALUATED = "GAM907"  # a test of what only Prometheus can tell
UNTESTED = "GAM908"  # no test in which it fires

OURS = "gamma_"  # metrics that begin so are Gamma's own, and all known
_FILLED = re.compile(r"\$labels\.([a-zA-Z_]\w*)|index \$labels \"([a-zA-Z_]\w*)\"")
MOST = 20_000  # evaluations of one test

All = Mapping[Address, Resource]


def alert_rules(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    there = collecting.everywhere(everything, resources)
    for resource in resources:
        yield from _rule(resource.address, resource.spec, there[resource.spec["prometheus"]])


def _rule(address: Address, spec: Json, there: Shown) -> Iterator[Diagnostic]:
    field = "expr" if spec["expr"] is not None else "metric"

    def wrong(
        code: str, message: str, *path: str | int, hint: str = "", severity: Severity = Severity.ERROR
    ) -> Diagnostic:
        at: Path = ("spec", *path)
        return Diagnostic(code, message, path=at, address=address, hint=hint, severity=severity)

    try:
        parsed = promql.parsed(expression(spec))
    except promql.BadExpression as error:
        yield wrong(EXPRESSION, f"this is no expression of a rule: {error}", field)
        return
    for says, hint in unknown(parsed.metrics, there):
        yield wrong(UNKNOWN, says, field, hint=hint)
    if not parsed.compares:
        says = "it compares nothing: it fires whenever its series are there"
        hint = "add a comparison, such as > 0"
        yield wrong(ALWAYS, says, field, hint=hint, severity=Severity.WARNING)
    for text in ("summary", "description"):
        for name in sorted(_filled(spec[text])):
            if not (parsed.labels.has(name) or name in spec["labels"] or name == "severity"):
                says = f"its alerts have no label {name!r}: the expression leaves it out"
                hint = f"keep it in the expression: by ({name}), or without what is left out"
                yield wrong(VANISHED, says, text, hint=hint)
    fires = False
    for number, test in enumerate(spec["tests"]):
        fires = fires or bool(test["fires"])
        for code, says, hint, severity in _tested(parsed, spec, test):
            yield wrong(code, says, "tests", number, hint=hint, severity=severity)
    if not fires:
        says = f"there is no test in which {address} fires, so nobody knows whether it can"
        hint = "add one to `tests`, with `series` that should be told of and the alerts in `fires`"
        yield wrong(UNTESTED, says, "tests" if spec["tests"] else field, hint=hint, severity=Severity.WARNING)


def unknown(metrics: Iterable[str], there: Shown) -> Iterator[tuple[str, str]]:
    """What is said of each that nobody exposes, with a hint. Of a Prometheus without collectors, or with one
    whose metrics nobody knows before, only Gamma's own are held to what there is."""
    for name in sorted(metrics):
        ours = name.startswith(OURS)
        if there.has(name) or (ours and not there.whole and name in exposed.SERIES):
            continue
        if there.whole:
            why = "no MetricCollector has it"
            yield f"nobody collects the metric {name}", did_you_mean(name, sorted(there.names)) or why
        elif ours:
            known = sorted(exposed.SERIES | there.names)
            yield f"nobody exposes the metric {name}", did_you_mean(name, known)


def _filled(text: str) -> set[str]:
    return {one or other for one, other in _FILLED.findall(text)}


def _tested(parsed: promql.Expression, spec: Json, test: Json) -> Iterator[tuple[str, str, str, Severity]]:
    every, at = _ms(test["every"]), _ms(test["at"])
    if at // every > MOST:
        says = f"{at // every:,} evaluations are more than the {MOST:,} that a test may take"
        yield UNREADABLE, says, "write a longer `every`", Severity.ERROR
        return
    labels = spec["labels"] | {"severity": spec["severity"]}
    rule = alerting.Rule(parsed.tree, _ms(spec["for"]), _ms(spec["keepFiring"]), labels)
    try:
        found = alerting.firing(rule, Store(series.load(test["series"], every), every), at)
    except series.BadSeries as error:
        yield UNREADABLE, f"the series {error}", "", Severity.ERROR
        return
    except NotEvaluated as error:
        says = f"this test is not run here: {error} is evaluated by Prometheus alone"
        yield NOT_EVALUATED, says, "", Severity.WARNING
        return
    wanted = {frozenset((labels | one).items()) for one in test["fires"]}
    if found == wanted:
        return
    when = f"after {written_duration(_time(test['at']))}"
    if missing := wanted - found:
        hint = _why(spec, test, found)
        yield FAILS, f"{when} {_named(missing, labels)} should fire, and does not", hint, Severity.ERROR
    elif more := found - wanted:
        yield FAILS, f"{when} {_named(more, labels)} fires, and should not", "", Severity.ERROR


def _why(spec: Json, test: Json, found: set[Tags]) -> str:
    wait, at = _time(spec["for"]), _time(test["at"])
    if wait > at:
        return f"`for` is {written_duration(wait)}, which is longer than the test"
    if found:
        return f"there fires {_named(found, spec['labels'] | {'severity': spec['severity']})}"
    return ""


def _named(alerts: set[Tags], common: Mapping[str, str]) -> str:
    def name(alert: Tags) -> str:
        own = sorted((key, value) for key, value in alert if key not in common)
        return "{" + ", ".join(f'{key}="{value}"' for key, value in own) + "}" if own else "the alert"

    return ", ".join(sorted(map(name, alerts)))


def _time(value: Json) -> timedelta:
    found = duration(value)
    assert isinstance(found, timedelta)
    return found


def _ms(value: Json) -> int:
    return round(_time(value).total_seconds() * 1000)
