"""The templates of this family's files, filled with values that have been checked. Pure.

A name that a template uses and nobody gives is an error. Templates are ours; they run in jinja2's sandbox all
the same, since what is filled in comes from specs.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).with_name("templates")


def filled(name: str, values: Mapping[str, Any], **filters: Callable[[str], str]) -> str:
    environment = _environment()
    environment.filters.update(filters)
    return environment.get_template(name).render(values)


@cache
def _environment() -> "Environment":
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        autoescape=False,  # it is no HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
