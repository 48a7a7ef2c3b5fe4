"""The base of many specs: where a `${...}` may stand, and where a value must be written out.

Names, places and definitions are needed before anything is applied, to find the object and to show what
will become of it; only values that nothing else hangs on may come from another resource or a secret.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import ValidationInfo, field_validator

from gamma_orch.core.leaves import LEAVES
from gamma_orch.spec.model import Spec


class WrittenOut(Spec):
    REFERS: ClassVar[frozenset[str]] = frozenset()  # the fields that may be a reference or a secret

    @field_validator("*", mode="after")
    @classmethod
    def _written_out(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, LEAVES) and info.field_name not in cls.REFERS:
            raise ValueError("this must be written out here; a ${...} cannot stand for it")
        return value

    def one_of(self, says: str, names: Sequence[str]) -> None:
        """Raises ValueError where not one of these fields alone is said. `says`: "a channel is"."""
        if len(found := [name for name in names if getattr(self, name) is not None]) != 1:
            said = " and ".join(f"`{name}`" for name in found) or "none"
            raise ValueError(f"{says} one of {', '.join(f'`{one}`' for one in names)}, and here is {said}")
