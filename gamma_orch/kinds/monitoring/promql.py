"""What an expression of PromQL says, found without a Prometheus: the series it asks for, the labels that its
result has, and whether it compares anything. Called by the kinds of monitoring when they check and render.

The grammar and the types are those of `promql_parser`. Two expressions are the same where `same` prints them
alike, which is how Prometheus' own spelling of a rule is compared with ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal

import promql_parser as parser

COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")
RATES = ("rate", "irate")
ABSENT = ("absent", "absent_over_time")
NAME = "__name__"


class BadExpression(ValueError):
    """It is no PromQL, or not of a type that a rule can have. The text says why, without the expression."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Which labels the series of a result have: those named (`only`), or all that they came with but those
    named (`without`). What is `added` is there in both cases."""

    kind: Literal["only", "without"] = "without"
    names: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        """Whether a series may have it."""
        return name in self.added or (name in self.names) == (self.kind == "only")

    def kept(self, names: frozenset[str]) -> "Labels":
        """Of these labels those."""
        return Labels("only", frozenset(name for name in names if self.has(name)))

    def dropped(self, names: frozenset[str]) -> "Labels":
        left = self.names - names if self.kind == "only" else self.names | names
        return Labels(self.kind, left, self.added - names)

    def with_(self, names: frozenset[str]) -> "Labels":
        return Labels(self.kind, self.names, self.added | names)

    def either(self, other: "Labels") -> "Labels":
        """Of series of which each has these labels or the others."""
        match self.kind, other.kind:
            case "only", "only":
                return Labels("only", self.names | other.names, self.added | other.added)
            case "without", "without":
                return Labels("without", self.names & other.names, self.added | other.added)
        without, only = (self, other) if self.kind == "without" else (other, self)
        return Labels("without", without.names - only.names, self.added | other.added)


@dataclass(frozen=True, slots=True)
class Expression:
    """One that was parsed."""

    text: str
    tree: Any

    @property
    def metrics(self) -> frozenset[str]:
        """Of the series that it asks for by their name."""
        return frozenset(name for one in self.selectors() if (name := _name(one)))

    def selectors(self) -> Iterator[Any]:
        return (one for one in nodes(self.tree) if isinstance(one, parser.VectorSelector))

    def matched(self) -> Iterator[tuple[str, str]]:
        """The metric (or "") and the label of each matcher."""
        for one in self.selectors():
            for matcher in one.matchers.matchers:
                if matcher.name != NAME:
                    yield _name(one), matcher.name

    @property
    def window(self) -> timedelta:
        """How far back it looks, with offsets."""
        return _window(self.tree)

    @property
    def compares(self) -> bool:
        """Whether its result is empty at times by its own doing. What only has a value fires whenever its
        series are there."""
        return _compares(self.tree)

    @property
    def divides(self) -> bool:
        """Whether its values are in another unit than those of its series."""
        return any(isinstance(one, parser.BinaryExpr) and str(one.op) == "/" for one in nodes(self.tree))

    @property
    def rate(self) -> bool:
        """Whether its values are of a second."""
        return any(isinstance(one, parser.Call) and one.func.name in RATES for one in nodes(self.tree))

    @property
    def labels(self) -> Labels:
        return _labels(self.tree)

    @property
    def pretty(self) -> str:
        return str(self.tree.prettify())


def parsed(text: str) -> Expression:
    """Raises BadExpression for what does not parse, and for what is no instant vector."""
    found = _parsed(text)
    if isinstance(found, str):
        raise BadExpression(found)
    return found


def same(one: str, other: str) -> bool:
    """Whether two spellings are of one expression; where one of them is none, whether they are equal."""
    if one == other:
        return True
    try:
        return parsed(one).pretty == parsed(other).pretty
    except BadExpression:
        return False


def nodes(tree: Any) -> list[Any]:
    found: list[Any] = []

    def visit(node: Any) -> bool:
        found.append(node)
        return True

    parser.walk(tree, visit)
    return found


@lru_cache(maxsize=4096)
def _parsed(text: str) -> "Expression | str":
    """The expression, or what is wrong with it."""
    try:
        tree = parser.parse(text)
    except ValueError as error:
        said = str(error)
        return "it is no PromQL that can be read to its end" if said == "invalid promql query" else said
    match _bare(tree):
        case parser.MatrixSelector() | parser.SubqueryExpr():
            return (
                "it is a range of values ([5m]) and not one at each moment; put rate(), increase() or an "
                "_over_time() around it"
            )
        case parser.StringLiteral():
            return "it is a text"
    if not any(isinstance(one, parser.VectorSelector) for one in nodes(tree)):
        return "it asks for no series"
    return Expression(text, tree)


def _bare(tree: Any) -> Any:
    while isinstance(tree, parser.ParenExpr):
        tree = tree.expr
    return tree


def _name(selector: Any) -> str:
    if selector.name:
        return str(selector.name)
    exact = (
        one.value for one in selector.matchers.matchers if one.name == NAME and one.op == parser.MatchOp.Equal
    )
    return next(exact, "")


def _children(tree: Any) -> list[Any]:
    match tree:
        case parser.BinaryExpr():
            return [tree.lhs, tree.rhs]
        case parser.Call():
            return list(tree.args)
        case parser.MatrixSelector():
            return [tree.vector_selector]
        case parser.AggregateExpr() | parser.SubqueryExpr() | parser.ParenExpr() | parser.UnaryExpr():
            return [tree.expr]
    return []


def _window(tree: Any) -> timedelta:
    here: timedelta = max(getattr(tree, "offset", None) or timedelta(0), timedelta(0))
    if isinstance(tree, parser.MatrixSelector | parser.SubqueryExpr):
        here += tree.range or timedelta(0)
    return here + max(map(_window, _children(tree)), default=timedelta(0))


def _compares(tree: Any) -> bool:
    match tree:
        case parser.ParenExpr():
            return _compares(tree.expr)
        case parser.BinaryExpr() if str(tree.op) in COMPARISONS:
            return not (tree.modifier and tree.modifier.return_bool)
        case parser.BinaryExpr() if str(tree.op) == "or":
            return _compares(tree.lhs) and _compares(tree.rhs)
        case parser.BinaryExpr() if str(tree.op) == "and":
            return _compares(tree.lhs) or _compares(tree.rhs)
        case parser.BinaryExpr() if str(tree.op) == "unless":
            return True
        case parser.BinaryExpr():
            return _compares(tree.lhs) or _compares(tree.rhs)
        case parser.AggregateExpr() | parser.UnaryExpr():
            return _compares(tree.expr)
        case parser.Call() if tree.func.name in ABSENT:
            return True
        case parser.Call():
            return any(map(_compares, tree.args))
    return False


def _labels(tree: Any) -> Labels:
    match tree:
        case parser.VectorSelector():
            return Labels()
        case parser.MatrixSelector():
            return Labels()
        case parser.ParenExpr() | parser.UnaryExpr() | parser.SubqueryExpr():
            return _labels(tree.expr)
        case parser.AggregateExpr():
            return _aggregated(tree)
        case parser.Call():
            return _called(tree)
        case parser.BinaryExpr():
            return _combined(tree)
    return Labels("only")  # a number has none


def _aggregated(tree: Any) -> Labels:
    inner, modifier = _labels(tree.expr), tree.modifier
    if str(tree.op) in ("topk", "bottomk", "limitk", "limit_ratio"):
        return inner  # the series themselves
    if modifier is None:
        found = Labels("only")
    elif modifier.type == parser.AggModifierType.Without:
        found = inner.dropped(frozenset(modifier.labels))
    else:
        found = inner.kept(frozenset(modifier.labels))
    if str(tree.op) == "count_values":
        found = found.with_(frozenset({str(tree.param.val)}))
    return found


def absent(tree: Any) -> frozenset[tuple[str, str]]:
    """The labels of what `absent` says of it: those that one selector has with one value."""
    selectors = [one for one in nodes(tree) if isinstance(one, parser.VectorSelector)]
    matchers = selectors[0].matchers.matchers if len(selectors) == 1 else []
    names = [one.name for one in matchers]
    return frozenset(
        (one.name, one.value)
        for one in matchers
        if one.op == parser.MatchOp.Equal and one.name != NAME and one.value and names.count(one.name) == 1
    )


def _called(tree: Any) -> Labels:
    name, args = tree.func.name, tree.args
    inner = [_labels(one) for one in args if not isinstance(one, parser.NumberLiteral | parser.StringLiteral)]
    match name:
        case "label_replace" | "label_join":
            return inner[0].with_(frozenset({str(args[1].val)}))
        case "absent" | "absent_over_time":
            return Labels("only", frozenset(name for name, _ in absent(args[0])))
        case "histogram_quantile":
            return inner[-1].dropped(frozenset({"le"}))
        case "vector" | "time" | "scalar":
            return Labels("only")
    return inner[-1] if inner else Labels("only")


def _combined(tree: Any) -> Labels:
    left, right, op, modifier = _labels(tree.lhs), _labels(tree.rhs), str(tree.op), tree.modifier
    numbers = [isinstance(_bare(one), parser.NumberLiteral) for one in (tree.lhs, tree.rhs)]
    if numbers[1]:
        return left
    if numbers[0]:
        return right
    if op == "or":
        return left.either(right)
    if op in ("and", "unless"):
        return left
    card = modifier.card if modifier else None
    if card is not None and card != parser.VectorMatchCardinality.OneToOne:
        many, one = (left, right) if card == parser.VectorMatchCardinality.ManyToOne else (right, left)
        copied = frozenset(name for name in modifier.group_labels or () if one.has(name))
        return many.with_(copied)
    matching = modifier.matching if modifier else None
    if matching is None:
        return left
    names = frozenset(matching.labels)
    return left.kept(names) if matching.type == parser.LabelModifierType.Include else left.dropped(names)
