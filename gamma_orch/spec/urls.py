"""URLs in specs, which may be secrets or have one in them."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from gamma_orch.core.leaves import LEAVES, Template

_LEAF = "\ufffd"  # in the place of what is not known yet


def url(*schemes: str) -> Callable[[Any], Any]:
    """A URL, which may be a secret or have one in it, but no password that everybody can read."""

    begins = f"a URL here begins with {' or '.join(f'{one}://' for one in schemes)}"

    def checked(value: Any) -> Any:
        if isinstance(value, LEAVES) and not isinstance(value, Template):
            return value
        if not isinstance(value, (str, Template)):
            raise ValueError(begins)  # noqa: TRY004 - a TypeError would not be said at its place
        parts = value.parts if isinstance(value, Template) else (value,)
        text = "".join(part if isinstance(part, str) else _LEAF for part in parts)
        scheme, separator, _ = text.partition("://")
        if _LEAF not in scheme and (not separator or scheme not in schemes):
            raise ValueError(begins)
        password = urlsplit(text).password
        if password and _LEAF not in password:
            raise ValueError("a password is not written into a spec; write ${secret.NAME} in its place")
        return value

    return checked
