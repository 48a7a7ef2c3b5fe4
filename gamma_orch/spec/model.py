"""The base of every kind's spec model, and the field types that more than one kind uses.

A spec is validated while some of its values are still leaves (`${Kind/name.output}`,
`${secret.x}`): those pass every check untouched, here and inside lists and maps declared with
`Item[...]`, and the model's own types apply to all the rest. Validators of a model's own may be
handed a leaf, and let it pass. Validation is strict: the text "5" is no number, `yes` is no truth
value, and an Enum wants `Field(strict=False)` (a Literal says the same more simply).

Alternatives are a plain union of models, each with a Literal field of its own; pydantic's
discriminators do not go together with leaves, and the messages are as good without them.
"""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, WrapValidator, field_validator
from pydantic_core.core_schema import CoreSchema, ValidatorFunctionWrapHandler

from gamma_orch.core.leaves import LEAVES

T = TypeVar("T")


def _pass_leaves(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, LEAVES) else handler(value)


# The element type of a list or map in which single elements may be leaves.
Item = Annotated[T, WrapValidator(_pass_leaves)]


class Names:
    """Marks a text field as the name of another resource of one of these kinds.

    The reference is checked at its line and column, and makes a dependency. With one kind the text
    is the resource's name; with several it may also be Kind/name; with none it must be.
    """

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "x-gamma-kinds": list(self.kinds)}

    def __repr__(self) -> str:
        return f"Names({', '.join(self.kinds)})"


class Spec(BaseModel):
    """Base of all spec models: unknown fields are errors, nothing is coerced, fields are camelCase
    in YAML through explicit aliases, and each has a description (`gamma explain` prints it)."""

    model_config = ConfigDict(
        extra="forbid",
        defer_build=True,  # a model inside another is built with it, not a second time by itself
        strict=True,
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",
        allow_inf_nan=False,
    )

    @field_validator("*", mode="wrap")
    @classmethod
    def _leaf_or_value(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        return value if isinstance(value, LEAVES) else handler(value)
