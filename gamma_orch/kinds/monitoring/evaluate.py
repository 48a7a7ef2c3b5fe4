"""PromQL without a Prometheus: what an expression is at a moment, from series that are given.

Called by the checks of rules, so that a rule's own tests run in the plan. It has what rules are made of; for
the rest it raises `NotEvaluated`, and whoever asked says that nobody knows. Pure. Always:

- Where it gives an answer, it is Prometheus' (2.42; tests compare with promtool), to the last digits of a
  float. Prometheus 3 leaves out the sample at the very beginning of a range: `left_open`.
- A series has no value more than five minutes after its last sample, or after it was marked stale.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import promql_parser as parser

from gamma_orch.kinds.monitoring import arithmetic
from gamma_orch.kinds.monitoring.promql import NAME, absent
from gamma_orch.kinds.monitoring.series import Series, Tags

Vector = dict[Tags, float]
Value = Vector | float | str


class NotEvaluated(Exception):
    """It has something in it that is not evaluated here."""


Ranges = dict[Tags, list[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class Store:
    series: Mapping[Tags, Series]
    step: int = 60_000  # ms between two points of a subquery that does not say
    left_open: bool = False

    def instant(self, tree: Any, time: int) -> Value:
        """Raises NotEvaluated."""
        return _Moment(self, time).value(tree)

    def vector(self, tree: Any, time: int) -> Vector:
        found = self.instant(tree, time)
        if isinstance(found, str):
            raise NotEvaluated("a text")
        return found if isinstance(found, dict) else {frozenset(): found}


@dataclass(frozen=True, slots=True)
class _Moment:
    store: Store
    time: int

    def value(self, tree: Any) -> Value:
        match tree:
            case parser.NumberLiteral():
                return float(tree.val)
            case parser.StringLiteral():
                return str(tree.val)
            case parser.ParenExpr():
                return self.value(tree.expr)
            case parser.UnaryExpr():
                return self._negative(self.value(tree.expr))
            case parser.VectorSelector():
                return self._selected(tree)
            case parser.AggregateExpr():
                return self._aggregated(tree)
            case parser.Call():
                return self._called(tree)
            case parser.BinaryExpr():
                return _combined(tree, self.value(tree.lhs), self.value(tree.rhs))
        raise NotEvaluated(type(tree).__name__)

    def vector(self, tree: Any) -> Vector:
        found = self.value(tree)
        if not isinstance(found, dict):
            raise NotEvaluated("a number where series are wanted")
        return found

    def number(self, tree: Any) -> float:
        found = self.value(tree)
        if not isinstance(found, float):
            raise NotEvaluated("series where a number is wanted")
        return found

    # --- selectors --------------------------------------------------------------------------------

    def _selected(self, tree: Any) -> Vector:
        time = self._shifted(tree)
        found = ((tags, series.at(time, self.store.left_open)) for tags, series in self._matching(tree))
        return {tags: value for tags, value in found if value is not None}

    def _matching(self, tree: Any) -> Iterable[tuple[Tags, Series]]:
        fits = _matchers(tree)
        return ((tags, series) for tags, series in self.store.series.items() if fits(dict(tags)))

    def _shifted(self, tree: Any) -> int:
        if tree.at is not None:
            raise NotEvaluated("@")
        return self.time - _ms(tree.offset)

    def ranges(self, tree: Any) -> tuple[Ranges, int, int]:
        """The samples of each series; where the range begins and ends."""
        while isinstance(tree, parser.ParenExpr):
            tree = tree.expr
        match tree:
            case parser.MatrixSelector():
                end = self._shifted(tree.vector_selector)
                start = end - _ms(tree.range)
                left = self.store.left_open
                found = (
                    (tags, series.within(start, end, left))
                    for tags, series in self._matching(tree.vector_selector)
                )
                return {tags: samples for tags, samples in found if samples}, start, end
            case parser.SubqueryExpr():
                return self._subquery(tree)
        raise NotEvaluated(type(tree).__name__)

    def _subquery(self, tree: Any) -> tuple[Ranges, int, int]:
        end = self._shifted(tree)
        start, step = end - _ms(tree.range), _ms(tree.step) or self.store.step
        first = -(-start // step) * step
        if self.store.left_open and first == start:
            first += step
        found: Ranges = {}
        for time in range(first, end + 1, step):
            inner = _Moment(self.store, time).value(tree.expr)
            at: Vector = inner if isinstance(inner, dict) else {frozenset(): float(inner)}
            for tags, value in at.items():
                found.setdefault(tags, []).append((time, value))
        return found, start, end

    # --- aggregation ------------------------------------------------------------------------------

    def _aggregated(self, tree: Any) -> Vector:
        op, modifier = str(tree.op), tree.modifier
        vector = self.vector(tree.expr)
        groups: dict[Tags, list[tuple[Tags, float]]] = {}
        for tags, value in vector.items():
            groups.setdefault(_group(tags, modifier), []).append((tags, value))
        if op in ("topk", "bottomk"):
            count = int(self.number(tree.param))
            found: Vector = {}
            for members in groups.values():
                # NaN last, whichever way.
                order = sorted(
                    members, key=lambda one: (math.isnan(one[1]), -one[1] if op == "topk" else one[1])
                )
                found |= dict(order[: max(count, 0)])
            return found
        if op == "count_values":
            name = str(self.value(tree.param))
            counts: dict[Tags, float] = {}
            for group, members in groups.items():
                for _, value in members:
                    tags = _with(group, name, arithmetic.printed(value))
                    counts[tags] = counts.get(tags, 0.0) + 1
            return counts
        if op == "quantile":
            share = self.number(tree.param)
            return {
                group: arithmetic.quantile(share, [v for _, v in members])
                for group, members in groups.items()
            }
        if op not in arithmetic.AGGREGATES:
            raise NotEvaluated(op)
        return {
            group: arithmetic.AGGREGATES[op]([v for _, v in members]) for group, members in groups.items()
        }

    # --- functions --------------------------------------------------------------------------------

    def _called(self, tree: Any) -> Value:
        name, args = str(tree.func.name), list(tree.args)
        if name in arithmetic.OVER_TIME:
            return _mapped(self.ranges(args[0])[0], arithmetic.OVER_TIME[name], name == "last_over_time")
        if name in arithmetic.EACH:
            vector = self.vector(args[0]) if args else {frozenset(): self.time / 1000}
            more = [self.number(one) for one in args[1:]]
            return _nameless({tags: arithmetic.EACH[name](value, *more) for tags, value in vector.items()})
        match name:
            case "rate" | "increase" | "delta":
                ranges, start, end = self.ranges(args[0])
                return _mapped(ranges, lambda samples: arithmetic.extrapolated(samples, start, end, name))
            case "quantile_over_time":
                share = self.number(args[0])
                ranges, _, _ = self.ranges(args[1])
                return _mapped(ranges, lambda samples: arithmetic.quantile(share, [v for _, v in samples]))
            case "predict_linear":
                ahead = self.number(args[1])
                ranges, _, _ = self.ranges(args[0])
                return _mapped(ranges, lambda samples: arithmetic.predicted(samples, self.time, ahead))
            case "absent":
                return {} if self.vector(args[0]) else {absent(args[0]): 1.0}
            case "absent_over_time":
                return {} if self.ranges(args[0])[0] else {absent(args[0]): 1.0}
            case "histogram_quantile":
                return _histogram(self.number(args[0]), self.vector(args[1]))
        return self._plain(name, args)

    def _plain(self, name: str, args: Sequence[Any]) -> Value:
        match name:
            case "time":
                return self.time / 1000
            case "vector":
                return {frozenset(): self.number(args[0])}
            case "scalar":
                vector = self.vector(args[0])
                return next(iter(vector.values())) if len(vector) == 1 else math.nan
            case "sort" | "sort_desc":
                return self.vector(args[0])
            case "timestamp":
                return self._timestamps(args[0])
            case "label_replace" | "label_join":
                return self._relabelled(name, args)
        raise NotEvaluated(f"{name}()")

    def _timestamps(self, tree: Any) -> Vector:
        while isinstance(tree, parser.ParenExpr):
            tree = tree.expr
        if not isinstance(tree, parser.VectorSelector):
            return dict.fromkeys(_nameless(self.vector(tree)), self.time / 1000)
        time = self._shifted(tree)
        found = {}
        for tags, series in self._matching(tree):
            if series.at(time, self.store.left_open) is not None:
                found[tags] = series.times[bisect_right(series.times, time) - 1] / 1000
        return _nameless(found)

    def _relabelled(self, name: str, args: Sequence[Any]) -> Vector:
        vector, texts = self.vector(args[0]), [str(self.value(one)) for one in args[1:]]
        relabelled = _joined if name == "label_join" else _replaced
        return {relabelled(tags, *texts): value for tags, value in vector.items()}

    @staticmethod
    def _negative(value: Value) -> Value:
        if isinstance(value, dict):
            return _nameless({tags: -number for tags, number in value.items()})
        return -float(value)


# --- series -------------------------------------------------------------------------------------------


def _ms(duration: timedelta | None) -> int:
    return round(duration.total_seconds() * 1000) if duration is not None else 0


def _whole(pattern: str) -> "re.Pattern[str]":
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise NotEvaluated(f"the pattern {pattern!r}") from error


def _matchers(tree: Any) -> Callable[[Mapping[str, str]], bool]:
    if tree.matchers.or_matchers:
        raise NotEvaluated("or between matchers")
    tests: list[tuple[str, Callable[[str], bool]]] = []
    if tree.name:
        tests.append((NAME, lambda value: value == tree.name))
    for one in tree.matchers.matchers:
        if one.op == parser.MatchOp.Equal:
            tests.append((one.name, lambda value, wanted=one.value: value == wanted))  # type: ignore[misc]
        elif one.op == parser.MatchOp.NotEqual:
            tests.append((one.name, lambda value, wanted=one.value: value != wanted))  # type: ignore[misc]
        else:
            pattern, wants = _whole(one.value), one.op == parser.MatchOp.Re
            tests.append(
                (one.name, lambda value, p=pattern, w=wants: (p.fullmatch(value) is not None) == w)  # type: ignore[misc]
            )
    return lambda tags: all(test(tags.get(name, "")) for name, test in tests)


def _with(tags: Tags, name: str, value: str) -> Tags:
    kept = frozenset(one for one in tags if one[0] != name)
    return kept | {(name, value)} if value else kept


def _nameless(vector: Vector) -> Vector:
    found: Vector = {}
    for tags, value in vector.items():
        bare = frozenset(one for one in tags if one[0] != NAME)
        if bare in found:
            raise NotEvaluated("two series with the same labels")
        found[bare] = value
    return found


def _joined(tags: Tags, target: str, between: str, *sources: str) -> Tags:
    of = dict(tags)
    return _with(tags, target, between.join(of.get(source, "") for source in sources))


def _replaced(tags: Tags, target: str, replacement: str, source: str, pattern: str) -> Tags:
    matched = _whole(pattern).fullmatch(dict(tags).get(source, ""))
    return tags if matched is None else _with(tags, target, _filled(replacement, matched))


def _group(tags: Tags, modifier: Any) -> Tags:
    if modifier is None:
        return frozenset()
    names = frozenset(modifier.labels)
    if modifier.type == parser.AggModifierType.Without:
        return frozenset(one for one in tags if one[0] not in names and one[0] != NAME)
    return frozenset(one for one in tags if one[0] in names)


def _mapped(
    ranges: Ranges, work: Callable[[arithmetic.Samples], float | None], keeps: bool = False
) -> Vector:
    found = ((tags, work(samples)) for tags, samples in ranges.items())
    there = {tags: value for tags, value in found if value is not None}
    return there if keeps else _nameless(there)


# --- operators --------------------------------------------------------------------------------------


def _combined(tree: Any, left: Value, right: Value) -> Value:
    op, modifier = str(tree.op), tree.modifier
    if isinstance(left, str) or isinstance(right, str):
        raise NotEvaluated("a text")
    if isinstance(left, dict) and isinstance(right, dict):
        if op in ("and", "or", "unless"):
            return _sets(op, left, right, modifier)
        return _matched(op, left, right, modifier)
    one = _One(op, bool(modifier and modifier.return_bool))
    if isinstance(left, float) and isinstance(right, float):
        found = one(left, right)
        return math.nan if found is None else found
    if isinstance(left, dict):
        assert isinstance(right, float)
        pairs = ((tags, value, right, value) for tags, value in left.items())
    else:
        assert isinstance(right, dict)
        pairs = ((tags, left, value, value) for tags, value in right.items())
    vector = {}
    for tags, a, b, kept in pairs:
        if (result := one(a, b)) is not None:
            vector[tags] = kept if one.filters else result
    return vector if one.filters else _nameless(vector)


class _One:
    """One operation on two numbers. None: a comparison that is not so leaves nothing."""

    def __init__(self, op: str, as_bool: bool) -> None:
        self.compares = op in arithmetic.COMPARISONS
        self.filters = self.compares and not as_bool
        if not self.compares and op not in arithmetic.ARITHMETIC:
            raise NotEvaluated(op)
        self._op = op

    def __call__(self, left: float, right: float) -> float | None:
        if not self.compares:
            return arithmetic.ARITHMETIC[self._op](left, right)
        holds = arithmetic.COMPARISONS[self._op](left, right)
        if self.filters:
            return left if holds else None
        return float(holds)


def _key(tags: Tags, modifier: Any) -> Tags:
    matching = modifier.matching if modifier else None
    if matching is None:
        return frozenset(one for one in tags if one[0] != NAME)
    names = frozenset(matching.labels)
    if matching.type == parser.LabelModifierType.Include:
        return frozenset(one for one in tags if one[0] in names)
    return frozenset(one for one in tags if one[0] not in names and one[0] != NAME)


def _sets(op: str, left: Vector, right: Vector, modifier: Any) -> Vector:
    theirs = {_key(tags, modifier) for tags in right}
    if op == "or":
        ours = {_key(tags, modifier) for tags in left}
        return left | {tags: value for tags, value in right.items() if _key(tags, modifier) not in ours}
    wanted = op == "and"
    return {tags: value for tags, value in left.items() if (_key(tags, modifier) in theirs) == wanted}


def _matched(op: str, left: Vector, right: Vector, modifier: Any) -> Vector:
    one = _One(op, bool(modifier and modifier.return_bool))
    card = modifier.card if modifier else parser.VectorMatchCardinality.OneToOne
    swapped = card == parser.VectorMatchCardinality.OneToMany
    many, single = (right, left) if swapped else (left, right)
    by: dict[Tags, tuple[Tags, float]] = {}
    for tags, value in single.items():
        if (key := _key(tags, modifier)) in by:
            raise NotEvaluated("several series on the side of which there is to be one")
        by[key] = tags, value
    grouped = card != parser.VectorMatchCardinality.OneToOne
    found: Vector = {}
    seen: set[Tags] = set()
    for tags, value in many.items():
        key = _key(tags, modifier)
        if key not in by:
            continue
        other_tags, other = by[key]
        a, b = (other, value) if swapped else (value, other)
        result = one(a, b)
        if result is None:
            continue
        if not grouped:
            if key in seen:
                raise NotEvaluated("several series on the side of which there is to be one")
            seen.add(key)
        target = _result(tags, other_tags, key, one.filters, grouped, modifier)
        if target in found:
            raise NotEvaluated("two results with the same labels")
        found[target] = result
    return found


def _result(tags: Tags, other: Tags, key: Tags, keeps: bool, grouped: bool, modifier: Any) -> Tags:
    if not grouped:
        matching = modifier.matching if modifier else None
        if matching is not None and matching.type == parser.LabelModifierType.Include:
            return key
        base = key if matching is not None else frozenset(one for one in tags if one[0] != NAME)
        name = dict(tags).get(NAME)
        return base | {(NAME, name)} if keeps and name else base
    base = tags if keeps else frozenset(one for one in tags if one[0] != NAME)
    of = dict(other)
    for name in modifier.group_labels or ():
        base = _with(base, name, of.get(name, ""))
    return base


def _histogram(share: float, vector: Vector) -> Vector:
    """From the counts of buckets (`le`) to a quantile, as `bucketQuantile` of Prometheus has it."""
    groups: dict[Tags, list[tuple[float, float]]] = {}
    for tags, value in vector.items():
        edge = dict(tags).get("le")
        try:
            bound = float(edge) if edge is not None else None
        except ValueError:
            bound = None
        if bound is not None:
            rest = frozenset(one for one in tags if one[0] not in ("le", NAME))
            groups.setdefault(rest, []).append((bound, value))
    return {tags: arithmetic.bucket(share, sorted(buckets)) for tags, buckets in groups.items()}


def _filled(replacement: str, matched: "re.Match[str]") -> str:
    def group(one: "re.Match[str]") -> str:
        name = one[1] or one[2]
        try:
            return matched[int(name) if name.isdigit() else name] or ""
        except IndexError:
            return ""

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", group, replacement)
