"""Reads the rows of a data file one by one: CSV, TSV, JSON Lines, JSON and Parquet.

Called by `prepare_data`. A row is a mapping from column to value, with the line that it begins at, so that
whatever is wrong is said at its line. CSV and JSON Lines are never in memory as a whole; a JSON array is,
since it has no lines to stop at. What is wrong with the file as such (its encoding, its quoting) ends the
reading: what follows cannot be trusted. What is wrong with one row is noted, and the reading goes on.
"""

import csv
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes.brought import megabytes

Format = Literal["csv", "tsv", "jsonl", "json", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl", "json", "parquet")
ENDINGS: Mapping[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
LARGEST = 4 << 20  # characters of one field or line; more is a quote that was never closed
WHOLE = 256 << 20  # bytes of a JSON array, which is read as a whole
_NOTED = 5  # of each kind of complaint, before they are only counted

Row = Mapping[str, Any]


@dataclass(slots=True)
class Complaints:
    """What is wrong, by kind: the first few in words, and how many there are."""

    said: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(listed := self.said.setdefault(kind, [])) < _NOTED:
            listed.append(text)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def texts(self) -> list[str]:
        found = []
        for kind, listed in self.said.items():
            found += listed
            if (more := self.counts[kind] - len(listed)) > 0:
                found.append(f"and {more} more of the same kind ({kind})")
        return found


def format_of(path: Path, asked: str) -> Format:
    """Raises Permanent where neither the params nor the file's ending tell."""
    if asked in FORMATS:
        return asked
    if asked == "auto" and (found := ENDINGS.get(path.suffix.lower())):
        return found
    raise Permanent(
        f"The format of {path.name} is not known ({asked}): write `format`, one of {', '.join(FORMATS)}."
    )


def columns(path: Path, kind: Format) -> list[str]:
    """The columns that the file has: of its header, or of its first rows."""
    if kind in ("csv", "tsv"):
        try:
            with _text(path) as lines:
                return next(_reader(lines, kind), [])
        except UnicodeDecodeError:
            raise Permanent(_undecodable(path)) from None
        except csv.Error as error:
            raise Permanent(_unreadable(path, 1, 1, str(error))) from None
    found: dict[str, None] = {}
    for _, row in islice(read(path, kind, Complaints()), 100):
        found.update(dict.fromkeys(row))
    return list(found)


def read(path: Path, kind: Format, complaints: Complaints) -> Iterator[tuple[int, Row]]:
    """The rows with the line each begins at (of a JSON array or Parquet: its number, from 1).

    Raises Permanent where the file cannot be read on; bad single rows go to `complaints`.
    """
    try:
        if kind in ("csv", "tsv"):
            yield from _csv(path, kind, complaints)
        elif kind == "jsonl":
            yield from _jsonl(path, complaints)
        elif kind == "json":
            yield from _json(path, complaints)
        else:
            yield from _parquet(path)
    except UnicodeDecodeError:
        raise Permanent(_undecodable(path)) from None


def _text(path: Path) -> Any:
    return path.open(encoding="utf-8-sig", newline="")


def _reader(lines: Any, kind: Format) -> Any:
    csv.field_size_limit(LARGEST)
    return csv.reader(lines, delimiter="," if kind == "csv" else "\t", strict=True)


def _csv(path: Path, kind: Format, complaints: Complaints) -> Iterator[tuple[int, Row]]:
    with _text(path) as lines:
        reader = _reader(lines, kind)
        begins = 1
        try:
            header: list[str] = next(reader, [])
            width = len(header)
            if twice := sorted({name for name in header if header.count(name) > 1}):
                raise Permanent(f"{path.name}, line 1: the header has {', '.join(twice)} more than once.")
            begins = reader.line_num + 1
            for cells in reader:
                if len(cells) == width:
                    yield begins, dict(zip(header, cells, strict=True))
                elif cells:  # a blank line is no row
                    complaints.add(
                        "ragged rows",
                        f"{path.name}, line {begins}: {len(cells)} fields, and the header has {width}. "
                        "A field with a comma or a line break in it needs quotes.",
                    )
                begins = reader.line_num + 1
        except csv.Error as error:
            raise Permanent(_unreadable(path, begins, reader.line_num, str(error))) from None


def _unreadable(path: Path, begins: int, line: int, reason: str) -> str:
    if "field larger" in reason:
        return (
            f"{path.name}: the row that begins at line {begins} is too large, a field of it has more than "
            f"{LARGEST:,} characters. Most often a quote before it was never closed."
        )
    if "unexpected end" in reason:
        return f"{path.name}: the row that begins at line {begins} has a quote that is never closed."
    return f"{path.name}, line {line}: {reason}. A quote inside a field is written twice."


def _jsonl(path: Path, complaints: Complaints) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LARGEST * 4):
            number += 1
            if len(line) == LARGEST * 4:
                raise Permanent(
                    f"{path.name}, line {number}: the row is too large, more than {megabytes(LARGEST * 4)}. "
                    "Is the file JSON Lines, one object a line? For one array, write `format: json`."
                )
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not text:
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                complaints.add("lines that are not JSON", f"{path.name}, line {number}: {error}")
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                complaints.add("rows", f"{path.name}, line {number}: not a JSON object but {_kind(row)}.")


def _json(path: Path, complaints: Complaints) -> Iterator[tuple[int, Row]]:
    if (size := path.stat().st_size) > WHOLE:
        raise Permanent(
            f"{path.name} is a JSON array of {megabytes(size)}, and is read as a whole: "
            f"{megabytes(WHOLE)} at most. Convert it to JSON Lines (jq -c '.[]')."
        )
    try:
        body = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise Permanent(
            f"{path.name} is not JSON: {error}. If it has one object a line, write `format: jsonl`."
        ) from None
    if isinstance(body, dict):  # {"data": [...]}, as many APIs answer
        lists = [value for value in body.values() if isinstance(value, list)]
        body = lists[0] if len(lists) == 1 else body
    if not isinstance(body, list):
        raise Permanent(f"{path.name} is no list of rows, but {_kind(body)}.")
    for number, row in enumerate(body, 1):
        if isinstance(row, dict):
            yield number, row
        else:
            complaints.add("rows", f"{path.name}, row {number}: not a JSON object but {_kind(row)}.")


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        # An option of the user's: nothing of Gamma asks for so large a package.
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise Permanent(
            f"{path.name} is Parquet, and reading it needs the package pyarrow, which is not installed. "
            "Install it beside Gamma, or give the data as CSV or JSON Lines."
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (arrow.ArrowInvalid, OSError) as error:
        raise Permanent(
            f"{path.name} cannot be read as Parquet: {str(error).partition(chr(10))[0]}"
        ) from None


def _undecodable(path: Path) -> str:
    """The line with the first byte that is not UTF-8; the whole file is read again to find it."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return (
                    f"{path.name}, line {number}: byte 0x{line[error.start]:02x} at column {error.start + 1} "
                    f"is not UTF-8. Convert the file (iconv -f latin1 -t utf-8), or mend that line."
                )
    return f"{path.name} is not UTF-8. Convert it (iconv -f latin1 -t utf-8)."


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
