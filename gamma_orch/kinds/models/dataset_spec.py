"""What may be written about a Dataset, and how it becomes the fields that are compared. Pure."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of
from gamma_orch.kinds.models.source import DataSource, stated
from gamma_orch.spec.quantities import Share, share_of
from gamma_orch.spec.written_out import WrittenOut

Format = Literal["auto", "csv", "tsv", "jsonl", "json", "parquet"]


class Columns(WrittenOut):
    text: str | None = "text"
    """The column with the text."""
    label: str | None = None
    """The column with the label of a classifier."""
    summary: str | None = None
    """The column with the summary of a text."""
    tokens: str | None = None
    """The column with a list of words, for token classification."""
    tags: str | None = None
    """The column with a tag for each word."""


class Clean(WrittenOut):
    strip: bool = True
    """Take blanks off both ends."""
    drop_empty: bool = Field(default=True, alias="dropEmpty")
    """Leave out rows without a text."""
    drop_duplicates: bool = Field(default=True, alias="dropDuplicates")
    """Leave out rows whose text was there before."""
    unescape_html: bool = Field(default=False, alias="unescapeHtml")
    """Write &amp; as & and <br /> as a line end."""
    min_length: int | None = Field(default=None, ge=1, alias="minLength")
    """Leave out shorter texts, in characters."""
    max_length: int | None = Field(default=None, ge=1, alias="maxLength")
    """Leave out longer texts, in characters."""
    where: dict[str, list[str | int | float | bool]] = Field(default_factory=dict)
    """Keep only the rows in which these columns have one of these values."""


class Splits(WrittenOut):
    test: Share = "20%"
    """The part that no choice ever sees: results are reported on it."""
    validation: Share = "10%"
    """The part that choices are made on: early stop, candidates."""
    by: str | None = None
    """The column whose value decides the split; rows with one value stay together. Default: the text."""
    salt: str = ""
    """Another text here makes another split."""

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        if share_of(self.test) + share_of(self.validation) >= 1:
            raise ValueError("test and validation together leave nothing to train on")
        return self


class Expectation(WrittenOut):
    expect: str = Field(min_length=1)
    """An expectation of Great Expectations, such as column_values_to_not_be_null."""
    column: str | None = None
    """The column it is about: text, label, ... (the names after mapping)."""
    split: Literal["all", "train", "validation", "test"] = "all"
    """The rows it is about."""
    arguments: dict[str, Any] = Field(default_factory=dict, alias="with")
    """Its other arguments: min_value: 100."""


class DatasetSpec(WrittenOut):
    source: DataSource
    """Where the rows come from."""
    format: Format = "auto"
    """What the file is; auto: by its name."""
    columns: Columns = Columns()
    """Which column is what."""
    labels: dict[str, str] = Field(default_factory=dict)
    """The labels of the data, and what they are called here: {"0": negative, "1": positive}."""
    clean: Clean = Clean()
    """What is left out or mended."""
    splits: Splits = Splits()
    """How rows are shared out. By a hash of the row, so that no row ever changes its split."""
    limit: int | None = Field(default=None, ge=10)
    """At most so many rows. The rows of a smaller limit are among those of a larger one."""
    expectations: list[Expectation] = Field(default_factory=list)
    """What must hold of the data. If one does not, the dataset is not made."""


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    source = stated(spec["source"])
    if query := source.get("postgres"):
        database = of(Address("Database", query["database"]))
        source["postgres"] = {
            "server": database["server"],
            "database": database["name"],
            "sql": query["sql"],
        }
    return {
        "source": source,
        "format": spec["format"],
        "columns": stated(spec["columns"]),
        "labels": dict(spec["labels"]),
        "clean": {k: v for k, v in spec["clean"].items() if v not in (None, {})},
        "splits": {
            "test": share_of(spec["splits"]["test"]),
            "validation": share_of(spec["splits"]["validation"]),
            "by": spec["splits"]["by"],
            "salt": spec["splits"]["salt"],
        },
        "limit": spec["limit"],
        "expectations": [stated(one) for one in spec["expectations"]],
    }


def preparation(fields: Fields) -> Mapping[str, Json]:
    """The parameters of the pass `prepare_data`."""
    splits = fields["splits"]
    return {
        "format": fields["format"],
        "columns": fields["columns"],
        "labels": {"map": fields["labels"]} if fields["labels"] else None,
        "clean": fields["clean"],
        "splits": {"test": splits["test"], "validation": splits["validation"]},
        "splitBy": splits["by"],
        "seed": splits["salt"],
        "limit": fields["limit"],
    }
