"""Makes one record of one row: its columns picked and named, its text cleaned, its label mapped.

Called by `prepare_data` for each row. A row that the rules leave out is counted by reason; one that cannot
be right (a label that the map does not know, tags that do not fit their tokens) is a complaint.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import did_you_mean
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes.rows import Complaints, Row

Reason = Literal["filtered", "empty", "no label", "too short", "too long"]
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_FIELDS = {
    "strip": True,
    "dropEmpty": True,
    "dropDuplicates": True,
    "unescapeHtml": False,
    "minLength": 0,
    "maxLength": 0,
    "where": {},
}


@dataclass(frozen=True, slots=True)
class Rules:
    strip: bool
    drop_empty: bool
    drop_duplicates: bool
    unescape_html: bool  # entities become characters, and <br> a line break
    shortest: int  # characters
    longest: int  # characters; 0: no limit
    where: Mapping[str, frozenset[str]]  # column of the file -> the values that are kept

    @classmethod
    def of(cls, params: Json) -> "Rules":
        """Raises Permanent for a rule that there is not."""
        given = {key: value for key, value in (params or {}).items() if value is not None}
        for key in given:
            if key not in _FIELDS:
                raise Permanent(f"There is no rule clean.{key}: {did_you_mean(key, _FIELDS)}")
        full = {**_FIELDS, **given}
        where = {
            column: frozenset(as_text(value) for value in (values if isinstance(values, list) else [values]))
            for column, values in full["where"].items()
        }
        return cls(
            bool(full["strip"]),
            bool(full["dropEmpty"]),
            bool(full["dropDuplicates"]),
            bool(full["unescapeHtml"]),
            int(full["minLength"]),
            int(full["maxLength"]),
            where,
        )


@dataclass(frozen=True, slots=True)
class Record:
    text: str  # what is hashed; of tokens, the tokens with blanks between
    label: str | None
    body: dict[str, Any]  # what is written, without the id


@dataclass(slots=True)
class Cleaning:
    columns: Mapping[str, str]  # the name that is written -> column of the file
    rules: Rules
    labels: Mapping[str, str] | None  # as in the file -> as written; None: as they are
    dropped: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, tuple[int, int]] = field(default_factory=dict)  # label -> how often, first line

    def record(self, row: Row, line: int, complaints: Complaints) -> Record | None:
        """None: the row is left out, and counted, or a complaint says what is wrong with it."""
        made = self._record(row, line, complaints)
        if isinstance(made, str):
            self.dropped[made] = self.dropped.get(made, 0) + 1
            return None
        return made

    def _record(self, row: Row, line: int, complaints: Complaints) -> Record | Reason | None:
        for column, values in self.rules.where.items():
            if as_text(row.get(column)) not in values:
                return "filtered"
        body: dict[str, Any] = {}
        for name, column in self.columns.items():
            value = row.get(column)
            if name in ("tokens", "tags"):
                value = _listed(value)
            elif name == "label":
                value = as_text(value).strip()
            elif name == "text" or isinstance(value, str):
                value = self._cleaned(as_text(value))
            body[name] = value
        return self._tagged(body, line, complaints) if "tokens" in body else self._labelled(body, line)

    def _labelled(self, body: dict[str, Any], line: int) -> Record | Reason:
        text = body["text"]
        if self.rules.drop_empty:
            if any(body[name] is None or body[name] == "" for name in body if name != "label"):
                return "empty"
            if not text.strip():
                return "empty"
            if body.get("label") == "":
                return "no label"
        if len(text) < self.rules.shortest:
            return "too short"
        if self.rules.longest and len(text) > self.rules.longest:
            return "too long"
        label = None
        if "label" in body:
            label = body["label"] = self._label(body["label"], line)
        return Record(text, label, body)

    def _tagged(self, body: dict[str, Any], line: int, complaints: Complaints) -> Record | Reason | None:
        tokens, tags = body["tokens"], body.get("tags")
        if not tokens and self.rules.drop_empty:
            return "empty"
        if tags is not None:
            if len(tags) != len(tokens):
                complaints.add("tags", f"line {line}: {len(tokens)} tokens, and {len(tags)} tags.")
                return None
            body["tags"] = [self._label(tag, line) for tag in tags]
        return Record(" ".join(tokens), None, body)

    def _label(self, label: str, line: int) -> str:
        if self.labels is None:
            return label
        if (mapped := self.labels.get(label)) is None:
            count, first = self.unknown.get(label, (0, line))
            self.unknown[label] = (count + 1, first)
            return label
        return mapped

    def _cleaned(self, text: str) -> str:
        if self.rules.unescape_html and ("&" in text or "<" in text):
            text = html.unescape(_BREAK.sub("\n", text))
        return text.strip() if self.rules.strip else text


def as_text(value: Any) -> str:
    """A scalar as a person would write it in the spec: 1 and 1.0 are "1", true is "true", null is ""."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, (int, float)) else json.dumps(value, ensure_ascii=False)


def _listed(value: Any) -> list[str]:
    """Tokens or tags: a list, a JSON list in a text, or words with blanks between."""
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                value = value.split()
        else:
            value = value.split()
    return [as_text(item) for item in value] if isinstance(value, Sequence) else []
