# ruff: noqa: E501
"""Every kind of mistake that pydantic can find, in our own words."""

from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError
from pydantic_core._pydantic_core import list_all_errors
from pydantic_core.core_schema import ErrorType

from gamma_orch.core.address import Address
from gamma_orch.core.leaves import Ref, Template, Unknown
from gamma_orch.spec.codes import Code
from gamma_orch.spec.complaints import BROKEN, checked, found, is_broken
from gamma_orch.spec.fields import allowed_at, annotations_at, field_at
from gamma_orch.spec.model import Item, Spec

LEAF = Ref(Address("Item", "a"), "url")


class Cat(Spec):
    sort: Literal["cat"]
    lives: int = 9
    """How often."""


class Dog(Spec):
    sort: Literal["dog"]
    name: str = ""


class Tagged(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    sort: Literal["cat"]
    lives: int = 9
    """How often."""


class TaggedDog(BaseModel):
    sort: Literal["dog"]
    name: str = ""


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Many(Spec):
    """One field for each sort of mistake."""

    model_config = ConfigDict(defer_build=False)

    number: float = Field(default=1, gt=0, lt=10)
    even: int = Field(default=2, multiple_of=2)
    short: str = Field(default="abc", min_length=2, max_length=4)
    two: list[int] = Field(default_factory=lambda: [1, 2], min_length=2)
    finite: float = 1.0
    pet: Annotated[Tagged | TaggedDog, Field(discriminator="sort")] | None = None
    colour: Annotated[Colour, Field(strict=False)] = Colour.RED
    size: Literal[1, 2] = 1
    mixed: Literal[1, "auto"] | bool | list[str] = "auto"
    deep: dict[str, list[Item[int | Literal["all"]]]] = Field(default_factory=dict)
    nested: "dict[str, Many | list[Many]]" = Field(default_factory=dict)
    keys: dict[Literal["a", "b"], int] = Field(default_factory=dict)
    pair: tuple[int, int] = (1, 2)
    day: date | None = None
    wait: timedelta | None = None
    money: Annotated[Decimal | None, Field(strict=False)] = None
    url: AnyUrl | None = None
    checked: int = 1
    either: "Cat | Dog | None" = None

    @field_validator("checked")
    @classmethod
    def _seven(cls, value: int) -> int:
        if value == 7:
            raise AssertionError("seven is taken")
        if value == 8:
            raise PydanticCustomError("own", "Eight is {how}", {"how": "too much"})
        return value

    @model_validator(mode="after")
    def _whole(self) -> "Many":
        if self.number == 5:
            raise ValueError("A number of 5 is not possible here.")
        return self


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"number": 0}, "GAM405 number: number must be more than 0; it is 0."),
        ({"number": 10.5}, "GAM405 number: number must be less than 10; it is 10.5."),
        ({"even": 3}, "GAM405 even: even must be a multiple of 2; it is 3."),
        ({"short": "a"}, "GAM405 short: short must have at least 2 characters; it has 1."),
        ({"short": "abcde"}, "GAM405 short: short must have at most 4 characters; it has 5."),
        ({"two": [1]}, "GAM405 two: two must have at least 2 entries; it has 1."),
        ({"finite": float("inf")}, "GAM405 finite: finite must be a finite number."),
        ({"pet": {"sort": "cta"}}, "GAM404 pet.sort: pet.sort must be cat or dog; it is 'cta'. (did you mean 'cat'?)"),
        ({"pet": {"lives": 1}}, "GAM401 pet.sort: The field sort is missing from pet."),
        ({"pet": {"sort": "cat", "lifes": 1}}, "GAM402 pet.lifes: pet has no field 'lifes'. (did you mean 'lives'?)"),
        ({"pet": "cat"}, 'GAM403 pet: pet must be a map; it is the text "cat".'),
        ({"colour": "blu"}, 'GAM404 colour: colour must be red or blue; it is the text "blu". (did you mean \'blue\'?)'),
        ({"size": 3}, "GAM404 size: size must be 1 or 2; it is the whole number 3."),
        ({"size": "1"}, 'GAM404 size: size must be 1 or 2; it is the text "1". (did you mean \'1\'?)'),
        ({"mixed": "aut"}, "GAM404 mixed: mixed must be 1, auto, true or false or a list; it is the text \"aut\". (did you mean 'auto'?)"),
        ({"mixed": {}}, "GAM403 mixed: mixed must be 1, auto, true or false or a list; it is an empty map."),
        ({"mixed": [1]}, 'GAM403 mixed[0]: mixed[0] must be a text; it is the whole number 1. (put it in quotes: "1")'),
        ({"deep": {"x": [1, "al"]}}, "GAM404 deep.x[1]: deep.x[1] must be all or a whole number; it is the text \"al\". (did you mean 'all'?)"),
        ({"deep": {"x": 1}}, "GAM403 deep.x: deep.x must be a list; it is the whole number 1. (begin each item with '- ')"),
        ({"nested": {"a": {"evn": 2}}}, "GAM402 nested.a.evn: nested.a has no field 'evn'. (did you mean 'even'?)"),
        ({"nested": {"a": [{"even": "x"}]}}, 'GAM403 nested.a[0].even: nested.a[0].even must be a whole number; it is the text "x".'),
        ({"nested": {"a": 5}}, "GAM403 nested.a: nested.a must be a map or a list; it is the whole number 5."),
        ({"keys": {"c": 1}}, 'GAM404 keys.c: keys.c must be a or b; it is the text "c".'),
        ({"pair": [1]}, "GAM403 pair: pair must be a list; it is a list."),
        ({"day": "x"}, 'GAM403 day: day must be a date; it is the text "x".'),
        ({"wait": 1.5}, "GAM403 wait: wait must be a duration; it is the number 1.5."),
        ({"money": []}, "GAM403 money: money must be a number; it is an empty list."),
        ({"url": 5}, "GAM403 url: url must be a URL; it is the whole number 5."),
        ({"checked": 7}, "GAM407 checked: seven is taken."),
        ({"checked": 8}, "GAM407 checked: Eight is too much."),
        ({"number": 5}, "GAM407 : A number of 5 is not possible here."),
        ({"either": {"sort": "cta"}}, "GAM404 either.sort: either.sort must be cat or dog; it is the text \"cta\". (did you mean 'cat'?)"),
        ({"either": {"sort": "dog", "lives": 1}}, "GAM402 either.lives: either has no field 'lives'. (one of: name)"),
        ({"either": {"sort": "dog", "lives": 1, "nam": 2}}, "GAM402 either.lives: either has no field 'lives'. (one of: name)|GAM402 either.nam: either has no field 'nam'. (did you mean 'name'?)"),
        ({"either": {}}, "GAM401 either.sort: The field sort is missing from either."),
        ({"either": {"sort": "cat", "name": "x"}}, "GAM402 either.name: either has no field 'name'. (one of: lives)"),
        ({"keys": {"a": LEAF}}, "GAM320 keys.a: keys.a is known before anything runs; it cannot be an output of another resource (${Item/a.url}). (write the value, or use a variable)"),
        ({"short": "\x1b[31m" + "x" * 60}, 'GAM405 short: short must have at most 4 characters; it has 65.'),
        ({"x" * 100: 1}, f"GAM402 {'x' * 100}: The document has no field '{'x' * 39}…'."),
    ],
)  # fmt: skip
def test_words(data: dict[str, Any], said: str) -> None:
    from gamma_orch.core.diagnostic import written

    model, faults = checked(Many, data, ())
    assert model is None
    shown = [
        f"{fault.code} {written(fault.path)}: {fault.message}" + (f" ({fault.hint})" if fault.hint else "")
        for fault in faults
    ]
    assert shown == said.split("|")


def test_a_faultless_value() -> None:
    model, faults = checked(
        Many, {"pet": {"sort": "dog"}, "either": {"sort": "dog"}, "number": LEAF}, ("spec",)
    )
    assert model is not None
    assert not faults


def test_what_is_broken_is_not_said_again() -> None:
    model, faults = checked(Many, {"keys": {"a": BROKEN}, "number": BROKEN}, ())
    assert model is None
    assert not faults
    assert is_broken(Template(("x", BROKEN)))
    assert not is_broken(Template(("x", LEAF)))


@pytest.mark.parametrize("error", list_all_errors(), ids=lambda error: error["type"])
def test_no_error_of_the_library_is_shown_as_it_is(error: Any) -> None:
    context = dict(error["example_context"] or {})
    if "error" in context:
        context["error"] = str(context["error"] or "x")
    if error["type"] in ("value_error", "assertion_error"):
        context["error"] = ValueError("x")

    class Picky(Spec):
        a: Any = None

        @field_validator("a")
        @classmethod
        def _refuse(cls, value: object) -> object:
            kind: ErrorType = error["type"]
            raise PydanticKnownError(kind, context or None)

    _, (fault,) = checked(Picky, {"a": "value"}, ("spec",))
    assert fault.message.endswith(".")
    assert "nput" not in fault.message
    assert fault.code in {
        Code.MISSING,
        Code.UNKNOWN_FIELD,
        Code.TYPE,
        Code.CHOICE,
        Code.RANGE,
        Code.FORM,
        Code.RULE,
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing (null)"),
        (True, "the truth value true"),
        (5, "the whole number 5"),
        (1.5, "the number 1.5"),
        ("a\x07", 'the text "a\N{REPLACEMENT CHARACTER}"'),
        ([], "an empty list"),
        ([1], "a list"),
        ({}, "an empty map"),
        ({"a": 1}, "a map"),
        (LEAF, "an output of another resource (${Item/a.url})"),
        (Unknown("x"), "a text that is not known yet"),
        (Template(("x",)), "a text that is not known yet"),
        (object(), "a value of type object"),
    ],
)
def test_found(value: object, words: str) -> None:
    assert found(value) == words


def test_fields_by_path() -> None:
    assert allowed_at(Many, ("either",)) == ["sort", "lives", "name"]
    assert allowed_at(Many, ("nested", "x", 0, "pet")) == ["sort", "lives", "name"]
    assert allowed_at(Many, ("number",)) == allowed_at(Many, ("nothing", 1)) == []
    assert field_at(Many, ("either", "lives")) == "How often."
    assert field_at(Many, ("pet", "nothing")) == ""
    assert annotations_at(Many, ("pair", 0)) == [int]

    class Loose(Spec):
        a: dict = Field(default_factory=dict)  # type: ignore[type-arg]
        b: list = Field(default_factory=list)  # type: ignore[type-arg]

    assert annotations_at(Loose, ("a", "x")) == annotations_at(Loose, ("b", 0)) == [Any]
