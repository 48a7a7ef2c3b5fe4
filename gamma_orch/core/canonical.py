"""One spelling of every value, and the digest of it.

Identity in Gamma is always the sha256 of canonical JSON: keys sorted, no blanks, no NaN.
Two values are the same thing exactly when these texts are equal.
"""

import hashlib
import json
from typing import Any

# A tree of dict[str, ...], list, str, int, float, bool and None, in which a leaf of
# `core.leaves` may stand where a scalar would. Trees are never mutated after they were built.
Json = Any


def _leaf(value: Any) -> Any:
    try:
        return value.encoded()
    except AttributeError:
        raise TypeError(f"{type(value).__name__} has no JSON form") from None


_encoder = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=False,
    allow_nan=False,
    check_circular=False,
    default=_leaf,
)


def canonical(value: Json) -> str:
    """The one JSON text of a value. Raises ValueError on NaN and infinities."""
    return _encoder.encode(value)


def digest(value: Json) -> str:
    """sha256 of the canonical text, 64 hex digits."""
    return hashlib.sha256(_encoder.encode(value).encode()).hexdigest()
