"""`${…}` inside texts: reading them, and putting values or leaves in their place.

    ${var.name} ${var.name.key}   a variable of the environment
    ${env.name}                   the environment's name
    ${secret.name}                a secret: a leaf, never its bytes
    ${Kind/name.output}           an output of another resource: a leaf, and a dependency
    $${                           a literal ${

A text that is one expression and nothing else takes on the value's type; inside a longer text the
value is written out, and a leaf makes the text a Template. `spec.resolve` walks each document that
may hold expressions through an `Evaluation`. What is reported goes through its `report`. Pure.
"""

import re
from collections.abc import Callable, Iterator
from enum import Enum
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from gamma_orch.core.address import KIND, NAME, Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path, did_you_mean
from gamma_orch.core.leaves import LEAVES, Ref, Template
from gamma_orch.spec.codes import Code
from gamma_orch.spec.complaints import BROKEN, Fault, found
from gamma_orch.spec.words import printable

# By how much expressions may make one document grow (all variables together count as one): the
# characters of texts, and 16 for any other value. Without it, ten lines that double each other would
# fill the memory.
MAX_GROWTH = 1 << 20
MAX_VALUE_DEPTH = 32
MAX_VARIABLE_CHAIN = 32

_OPEN = re.compile(r"\$\$\{|\$\{")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SECRET = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_LITERAL = "write $${ for a literal ${"


class Form(Enum):
    VARIABLE = "var"
    ENVIRONMENT = "env"
    SECRET = "secret"  # noqa: S105
    OUTPUT = "output"


class Expression(NamedTuple):
    form: Form
    names: tuple[str, ...]  # var: name and keys; secret: name; output: output
    address: Address | None  # output: of what
    ordinal: int  # which `${` or `$${` of its text, from 0


class Malformed(NamedTuple):
    code: Code
    message: str
    hint: str
    ordinal: int


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[str | Expression | Malformed, ...]:
    """A text as its literal parts and its expressions, in order."""
    parts: list[str | Expression | Malformed] = []
    at = 0
    ordinal = 0
    while (opening := _OPEN.search(text, at)) is not None:
        if opening.start() > at:
            parts.append(text[at : opening.start()])
        if opening.group() == "$${":
            parts.append("${")
            at = opening.end()
        else:
            end = text.find("}", opening.end())
            again = text.find("${", opening.end())
            if end < 0 or -1 < again < end:
                parts.append(
                    Malformed(
                        Code.EXPRESSION,
                        "An expression ${ is opened and not closed.",
                        f"close it with }}, or {_LITERAL}",
                        ordinal,
                    )
                )
                return tuple(parts)
            parts.append(_expression(text[opening.end() : end].strip(), ordinal))
            at = end + 1
        ordinal += 1
    if at < len(text):
        parts.append(text[at:])
    return tuple(parts)


def _expression(body: str, ordinal: int) -> Expression | Malformed:
    shown = printable(body, 60)
    head, dot, rest = body.partition(".")
    if "/" in body:
        kind, _, tail = body.partition("/")
        name, dot, output = tail.rpartition(".")
        if not dot or not KIND.fullmatch(kind) or not NAME.fullmatch(name) or not output.isidentifier():
            return Malformed(
                Code.EXPRESSION,
                f"${{{shown}}} is not of the form ${{Kind/name.output}}.",
                "for example ${Database/main.url}",
                ordinal,
            )
        return Expression(Form.OUTPUT, (output,), Address(kind, name), ordinal)
    match head:
        case "var":
            names = tuple(rest.split("."))
            if dot and all(_VARIABLE.fullmatch(names[0]) and name for name in names):
                return Expression(Form.VARIABLE, names, None, ordinal)
        case "secret":
            if _SECRET.fullmatch(rest):
                return Expression(Form.SECRET, (rest,), None, ordinal)
        case "env":
            if rest == "name":
                return Expression(Form.ENVIRONMENT, (), None, ordinal)
            return Malformed(
                Code.UNKNOWN_EXPRESSION,
                f"${{{shown}}} is unknown: of the environment only ${{env.name}} can be asked.",
                "a process's environment variable comes in as ${secret.…} or as a variable",
                ordinal,
            )
        case _:
            near = did_you_mean(head, ["var", "secret", "env"]) if dot else ""
            hint = near if near.startswith("did") else f"var, env, secret or Kind/name.output; {_LITERAL}"
            return Malformed(Code.UNKNOWN_EXPRESSION, f"${{{shown}}} is not an expression.", hint, ordinal)
    return Malformed(Code.EXPRESSION, f"${{{shown}}} is malformed.", f"for example ${{{head}.name}}", ordinal)


Report = Callable[[Fault], None]


class Growth:
    """What is left of MAX_GROWTH."""

    def __init__(self) -> None:
        self.left = MAX_GROWTH

    def affords(self, value: Json) -> bool:
        """Take a value's size off; False when that was too much, or the value is too deep."""
        pending = [(value, 0)]
        while pending:
            tree, depth = pending.pop()
            self.left -= len(tree) if type(tree) is str else 16
            if self.left < 0 or depth > MAX_VALUE_DEPTH:
                return False
            if type(tree) is dict:
                pending += [(inner, depth + 1) for inner in tree.values()]
                self.left -= sum(map(len, tree))
            elif type(tree) is list:
                pending += [(inner, depth + 1) for inner in tree]
            elif type(tree) is Template:
                pending += [(inner, depth) for inner in tree.parts]
        return True


class Evaluation:
    """Puts values into one document after the other; `needs` are the addresses the last one asked for."""

    def __init__(
        self,
        variable: Callable[[tuple[str, ...]], Json | Fault],
        secret: Callable[[str], Json | Fault],
        output: Callable[[Address, str], Fault | None],
        environment: str,
    ) -> None:
        self._variable = variable
        self._secret = secret
        self._output = output
        self._environment = environment
        self._report: Report = _nowhere
        self._growth = Growth()
        self.needs: set[Address] = set()
        self.broken = False  # something in the document last walked could not be evaluated

    def document(self, tree: Json, path: Path, report: Report, growth: Growth | None = None) -> Json:
        """The tree with every expression replaced. It is copied only where something was."""
        self._report, self._growth, self.needs, self.broken = report, growth or Growth(), set(), False
        return self._walk(tree, path)

    def _walk(self, tree: Json, path: Path) -> Json:
        if type(tree) is str:
            return self._text(tree, path) if "${" in tree else tree
        if type(tree) is dict:
            changed = {}
            for key, value in tree.items():
                if "${" in key:
                    self._report(
                        Fault(
                            Code.UNKNOWN_EXPRESSION,
                            "An expression cannot be a key.",
                            (*path, key),
                            "use it in the value",
                        )
                    )
                new = self._walk(value, (*path, key))
                if new is not value:
                    changed[key] = new
            return {**tree, **changed} if changed else tree
        if type(tree) is list:
            items = [self._walk(value, (*path, index)) for index, value in enumerate(tree)]
            return items if any(new is not old for new, old in zip(items, tree, strict=True)) else tree
        return tree

    def _text(self, text: str, path: Path) -> Json:
        parts = parse(text)
        if len(parts) == 1:
            (only,) = parts
            return only if isinstance(only, str) else self._value(only, path)
        written: list[Json] = []
        for part in parts:
            if isinstance(part, str):
                written.append(part)
                continue
            value = self._value(part, path)
            if type(value) is Template:
                written += value.parts
            elif isinstance(value, LEAVES):
                written.append(value)
            elif isinstance(value, str | int | float):
                written.append(str(value).lower() if value is True or value is False else str(value))
            else:
                self._report(
                    Fault(
                        Code.NOT_A_TEXT,
                        f"The expression is {found(value)}; it cannot stand inside a text.",
                        path,
                        "let the expression be the whole value",
                        ordinal=part.ordinal,
                    )
                )
        return _joined(written)

    def _value(self, part: Expression | Malformed, path: Path) -> Json:
        value = self._valued(part, path)
        self.broken = self.broken or value is BROKEN
        return value

    def _valued(self, part: Expression | Malformed, path: Path) -> Json:
        if isinstance(part, Malformed):
            self._report(Fault(part.code, part.message, path, part.hint, ordinal=part.ordinal))
            return BROKEN
        value: Json
        match part.form:
            case Form.ENVIRONMENT:
                value = self._environment
            case Form.VARIABLE:
                value = self._variable(part.names)
            case Form.SECRET:
                value = self._secret(part.names[0])
            case Form.OUTPUT:
                value = self._asked(part.address, part.names[0])
        if type(value) is Fault:
            if value.message:
                self._report(value._replace(path=path, ordinal=part.ordinal))
            return BROKEN
        return value if self._growth.affords(value) else self._too_large(part, path)

    def _asked(self, address: Address | None, output: str) -> Json:
        assert address is not None
        fault = self._output(address, output)
        if fault is not None:
            return fault
        self.needs.add(address)
        return Ref(address, output)

    def _too_large(self, part: Expression, path: Path) -> Json:
        self._report(
            Fault(
                Code.EXPANSION,
                f"Expressions up to this one make the document grow by more than {MAX_GROWTH >> 20} MiB, "
                f"or deeper than {MAX_VALUE_DEPTH} levels.",
                path,
                "variables that hold each other several times grow with every step",
                ordinal=part.ordinal,
            )
        )
        return BROKEN


def _nowhere(fault: Fault) -> None:
    """Before the first document nothing can be reported."""


def _joined(parts: list[Json]) -> Json:
    """The parts as one text if they are texts alone, else a Template with neighbouring texts joined."""
    if all(type(part) is str for part in parts):
        return "".join(parts)
    joined: list[Json] = []
    for are_texts, run in groupby(parts, lambda part: type(part) is str):
        neighbours = list(run)
        joined += ["".join(neighbours)] if are_texts else neighbours
    return Template(tuple(joined))


def leaf_paths(tree: Json, path: Path) -> Iterator[tuple[Path, Json]]:
    """Every leaf of a tree and where it stands."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaf_paths(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from leaf_paths(value, (*path, index))
    elif isinstance(tree, LEAVES):
        yield path, tree
