"""A value against its pydantic model -> the model's instance, or faults in our own words.

`checked` is the one door to pydantic's validation in the language: the kinds' specs, the metadata
and the environment all pass it. Every error type pydantic can raise is worded here; a union that
fits in no way yields one fault, that of the alternative most likely meant. Pure.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path, did_you_mean, written
from gamma_orch.core.leaves import LEAVES, Ref, Secret, Template, Unknown
from gamma_orch.spec.codes import Code
from gamma_orch.spec.fields import allowed_at, field_at
from gamma_orch.spec.positions import Part, has
from gamma_orch.spec.words import printable, quoted

M = TypeVar("M", bound=BaseModel)


# Stands in for what could not be evaluated: it passes every check, so that one mistake is said once.
BROKEN = Unknown("of an error in the specs")


def is_broken(leaf: Json) -> bool:
    """Whether a leaf stands for a mistake that is reported already."""
    return leaf is BROKEN or (type(leaf) is Template and any(part is BROKEN for part in leaf.parts))


class Fault(NamedTuple):
    """What is wrong at a path; the caller knows the document, and makes a Diagnostic of it."""

    code: str  # a Code, or one of a kind's own
    message: str
    path: Path
    hint: str = ""
    part: Part = Part.VALUE
    ordinal: int = -1  # which `${` of a text is meant, from 0


class Mistake(NamedTuple):
    """One pydantic error, its location sorted into the value's own path and a union's branches."""

    steps: tuple[tuple[bool, str | int], ...]  # (is it a branch?, part)
    type: str
    context: dict[str, Any]
    input: Any
    message: str

    @property
    def path(self) -> Path:
        return tuple(part for branch, part in self.steps if not branch)


def checked(model: type[M], data: Json, at: Path) -> tuple[M | None, list[Fault]]:
    """Validate `data`, which stands at the path `at` of its document."""
    try:
        return cast(M, model.__pydantic_validator__.validate_python(data, by_alias=True, by_name=False)), []
    except ValidationError as error:
        raw = error.errors(include_url=False)
    mistakes = [
        Mistake(_steps(e["loc"], data, e["type"]), e["type"], e.get("ctx", {}), e["input"], e["msg"])
        for e in raw
        if not is_broken(e["input"])  # said already, where the expression stands
    ]
    faults = dict.fromkeys(_fault(model, data, at, group) for group in _settled(mistakes))
    return None, _without_echoes(list(faults))


def _without_echoes(faults: list[Fault]) -> list[Fault]:
    """A misspelt field is missing and unknown: say the second only, where its hint names the first."""
    misspelt = {
        (*fault.path[:-1], match.group(1))
        for fault in faults
        if fault.code is Code.UNKNOWN_FIELD and (match := re.fullmatch(r"did you mean '(.*)'\?", fault.hint))
    }
    return [fault for fault in faults if fault.code is not Code.MISSING or fault.path not in misspelt]


def found(value: Json) -> str:
    """A value as it is named in a message: what sort it is, and what it says if that is short."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int():
            return f"the whole number {value}"
        case float():
            return f"the number {value}"
        case str():
            return f'the text "{printable(value)}"'
        case list() | tuple():
            return "a list" if value else "an empty list"
        case dict():
            return "a map" if value else "an empty map"
        case Ref(address, output):
            return f"an output of another resource (${{{address}.{output}}})"
        case Secret(name, _):
            return f"a secret (${{secret.{name}}})"
        case Template() | Unknown():
            return "a text that is not known yet"
    return f"a value of type {type(value).__name__}"


def _steps(location: Sequence[str | int], data: Json, kind: str) -> tuple[tuple[bool, str | int], ...]:
    """Tell the parts of a location that are keys of the data from those that name a union's branch."""
    steps: list[tuple[bool, str | int]] = []
    here = data
    for count, part in enumerate(location):
        last = count == len(location) - 1
        if has(here, part):
            here = here[part]
            steps.append((False, part))
        else:
            steps.append((not (last and kind == "missing" and isinstance(here, dict)), part))
    return tuple(steps)


# --- unions ---------------------------------------------------------------------------------------

# What is wanted, by the types of error that mean: another sort of value stands here.
_WRONG_SORT = {
    error: wanted
    for wanted, errors in {
        "a text": "string_type string_unicode bytes_type",
        "a whole number": "int_type int_from_float int_parsing int_parsing_size",
        "a number": "float_type float_parsing decimal_type decimal_parsing fraction_type fraction_parsing "
        "complex_type complex_str_parsing",
        "true or false": "bool_type bool_parsing",
        "a list": "list_type tuple_type set_type frozen_set_type deque_type iterable_type named_tuple_type",
        "a map": "dict_type frozen_dict_type ordered_dict_type counter_type mapping_type model_type "
        "model_attributes_type dataclass_type dataclass_exact_type",
        "nothing (null)": "none_required",
        "a date": "date_type date_parsing date_from_datetime_parsing date_from_datetime_inexact",
        "a time of day": "time_type time_parsing",
        "a date and time": "datetime_type datetime_parsing datetime_object_invalid "
        "datetime_from_date_parsing",
        "a duration": "time_delta_type time_delta_parsing",
        "a URL": "url_type url_parsing url_syntax_violation",
        "a UUID": "uuid_type uuid_parsing uuid_version",
    }.items()
    for error in errors.split()
}


def _settled(mistakes: list[Mistake]) -> list[list[Mistake]]:
    """Group mistakes so that each group is one thing to say. Only a union's group has several."""
    settled: list[list[Mistake]] = []
    unions: dict[tuple[tuple[bool, str | int], ...], dict[str | int, list[Mistake]]] = {}
    for mistake in mistakes:
        cut = next((i for i, (branch, _) in enumerate(mistake.steps) if branch), None)
        if cut is None or mistake.steps[cut][1] == "[key]":
            settled.append([mistake])
            continue
        rest = mistake._replace(steps=mistake.steps[:cut] + mistake.steps[cut + 1 :])
        unions.setdefault(mistake.steps[:cut], {}).setdefault(mistake.steps[cut][1], []).append(rest)
    for before, branches in unions.items():
        depth = len(before)
        choices = [_settled(group) for group in branches.values()]
        # The alternatives whose sort the value has: they are wrong further inside.
        entered = [groups for groups in choices if not any(_outside(m, depth) for g in groups for m in g)]
        settled += _likeliest(entered) if entered else [[m for groups in choices for g in groups for m in g]]
    return settled


def _outside(mistake: Mistake, depth: int) -> bool:
    """Whether a mistake says that the value as a whole is nothing of this alternative."""
    return len(mistake.path) == depth and (mistake.type in _WRONG_SORT or mistake.type in _CHOICES)


def _likeliest(entered: list[list[list[Mistake]]]) -> list[list[Mistake]]:
    """Of several alternatives, what to say: a tag that fits none of them, else the one with least wrong."""
    tags = [{m.path: m for g in groups for m in g if m.type in _CHOICES} for groups in entered]
    everywhere = set(tags[0]).intersection(*tags[1:]) if len(tags) > 1 else set()
    if everywhere:
        path = min(everywhere, key=len)
        return [[found[path] for found in tags]]
    return min(entered, key=lambda groups: (any(_is_tag(m) for g in groups for m in g), len(groups)))


def _is_tag(mistake: Mistake) -> bool:
    """Whether a field that tells alternatives apart has the value of another one."""
    return mistake.type in _CHOICES and len(_allowed(mistake)) == 1


_CHOICES = ("literal_error", "enum")


# --- words ----------------------------------------------------------------------------------------

_ALLOWED = re.compile(r"'((?:[^'\\]|\\.)*)'|(?<![\w.])(-?\d+(?:\.\d+)?|True|False|None)(?![\w.])")


def _allowed(mistake: Mistake) -> list[str]:
    """The values a literal or an enum admits, from pydantic's sentence about it."""
    return [text or word for text, word in _ALLOWED.findall(str(mistake.context.get("expected", "")))]


def _fault(model: type[BaseModel], data: Json, at: Path, group: list[Mistake]) -> Fault:
    mistake = group[0]
    path = at + mistake.path
    if len(group) > 1:
        return _no_alternative(group, path)
    if isinstance(mistake.input, LEAVES):
        message = f"{written(path)} is known before anything runs; it cannot be {found(mistake.input)}."
        return Fault(Code.LEAF_MISPLACED, message, path, "write the value, or use a variable")
    match mistake.type:
        case "missing":
            name = str(path[-1])
            hint = field_at(model, mistake.path)
            where = written(path[:-1])
            return Fault(Code.MISSING, f"The field {name} is missing from {where}.", path, hint, Part.KEY)
        case "extra_forbidden":
            names = allowed_at(model, mistake.path[:-1])
            message = f"{written(path[:-1]) or 'The document'} has no field {quoted(str(path[-1]))}."
            present = _present(data, mistake.path[:-1])
            hint = did_you_mean(str(path[-1]), [n for n in names if n not in present]) or did_you_mean(
                str(path[-1]), names
            )
            return Fault(Code.UNKNOWN_FIELD, message, path, hint, Part.KEY)
        case kind if kind in _CHOICES:
            return _choice(mistake, path)
        case kind if kind in _WRONG_SORT:
            return _wrong_sort([_WRONG_SORT[kind]], mistake, path)
    return _bounds(mistake, path)


def _no_alternative(group: list[Mistake], path: Path) -> Fault:
    choices = [value for m in group if m.type in _CHOICES for value in _allowed(m)]
    sorts = list(dict.fromkeys(_WRONG_SORT[m.type] for m in group if m.type in _WRONG_SORT))
    value = group[0].input
    if choices and isinstance(value, str):
        message = f"{written(path)} must be {_either([*choices, *sorts])}; it is {found(value)}."
        return Fault(Code.CHOICE, message, path, _instead(sorts, value) or _meant(value, choices))
    return _wrong_sort([*choices, *sorts], group[0], path)


def _choice(mistake: Mistake, path: Path) -> Fault:
    allowed = _allowed(mistake)
    message = f"{written(path)} must be {_either(allowed)}; it is {found(mistake.input)}."
    hint = _meant(mistake.input, allowed) if isinstance(mistake.input, str) else ""
    if not isinstance(mistake.input, str) and str(mistake.input) in allowed:
        hint = f'put it in quotes: "{mistake.input}"'
    return Fault(Code.CHOICE, message, path, hint)


def _meant(value: str, allowed: Sequence[str]) -> str:
    """The nearest of the allowed values; the message has listed all of them already."""
    hint = did_you_mean(value, allowed)
    return hint if hint.startswith("did") else ""


def _wrong_sort(wanted: list[str], mistake: Mistake, path: Path) -> Fault:
    message = f"{written(path)} must be {_either(wanted)}; it is {found(mistake.input)}."
    return Fault(Code.TYPE, message, path, _instead(wanted, mistake.input))


def _instead(wanted: Sequence[str], value: Json) -> str:
    """How to write a value of the sort that is wanted, where that can be told from what stands there."""
    match value:
        case bool() | int() | float() if "a text" in wanted:
            return f'put it in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
        case str() if "true or false" in wanted and value.lower() in _TRUE | _FALSE:
            return "write true" if value.lower() in _TRUE else "write false"
        case str() if ("a number" in wanted or "a whole number" in wanted) and _numeric(value):
            return f"write {value.replace('_', '')} without quotes"
        case None if "a map" in wanted or "a list" in wanted:
            return "write its content below it, indented; or leave the key out"
        case None:
            return "write a value, or leave the key out"
        case str() | bool() | int() | float() if list(wanted) == ["a list"]:
            return "begin each item with '- '"
    return ""


_TRUE = frozenset({"true", "yes", "on"})
_FALSE = frozenset({"false", "no", "off"})


def _numeric(text: str) -> bool:
    return re.fullmatch(r"[-+]?\d[\d_]*(\.\d+)?", text) is not None


def _either(words: Sequence[str]) -> str:
    if len(words) <= 1:
        return "".join(words) or "another value"
    return ", ".join(words[:-1]) + " or " + words[-1]


_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_LENGTHS = {
    "string_too_short": ("at least", "min_length", "character"),
    "string_too_long": ("at most", "max_length", "character"),
    "too_short": ("at least", "min_length", "entry"),
    "too_long": ("at most", "max_length", "entry"),
}


def _bounds(mistake: Mistake, path: Path) -> Fault:
    where = written(path)
    context = mistake.context
    match mistake.type:
        case kind if kind in _BOUNDS:
            words, key = _BOUNDS[kind]
            limit = context[key]
            limit = int(limit) if isinstance(limit, float) and limit.is_integer() else limit
            message = f"{where} must be {words} {limit}; it is {mistake.input}."
            return Fault(Code.RANGE, message, path)
        case kind if kind in _LENGTHS:
            words, key, thing = _LENGTHS[kind]
            limit = context[key]
            unit = thing if limit == 1 else {"character": "characters", "entry": "entries"}[thing]
            length = len(mistake.input) if hasattr(mistake.input, "__len__") else "another number"
            return Fault(Code.RANGE, f"{where} must have {words} {limit} {unit}; it has {length}.", path)
        case "string_pattern_mismatch":
            message = f"{where} is {found(mistake.input)}, which is not of the form it must have."
            return Fault(Code.FORM, message, path, f"the form is {context['pattern']}")
        case "finite_number":
            return Fault(Code.RANGE, f"{where} must be a finite number.", path)
        case "value_error" | "assertion_error":
            return Fault(Code.RULE, _sentence(str(context.get("error", mistake.message))), path)
        case "union_tag_invalid":
            key = str(context["discriminator"]).strip("'")
            allowed = [text or word for text, word in _ALLOWED.findall(str(context["expected_tags"]))]
            message = f"{where}.{key} must be {_either(allowed)}; it is {quoted(str(context['tag']))}."
            return Fault(Code.CHOICE, message, (*path, key), did_you_mean(str(context["tag"]), allowed))
        case "union_tag_not_found":
            key = str(context["discriminator"]).strip("'")
            return Fault(
                Code.MISSING, f"The field {key} is missing from {where}.", (*path, key), "", Part.KEY
            )
    if mistake.type in get_args(ErrorType):  # the library's own words are not for people
        return Fault(Code.FORM, f"{where} is {found(mistake.input)}, which is not accepted here.", path)
    return Fault(Code.RULE, _sentence(mistake.message), path)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) or not text else text + "."


def _present(data: Json, path: Path) -> frozenset[str]:
    for part in path:
        data = data[part]
    return frozenset(data) if isinstance(data, dict) else frozenset()
