"""The stable codes of everything the language can complain about.

The first digit says which stage speaks: 1 the text of a file, 2 a document's envelope, 3 the
environment with its patches and expressions, 4 a spec against its kind, 5 references.
`docs/diagnostics.md` has the same table with examples; a test holds both together. A code is
never given a second meaning; one that is no longer used is left as a gap.
"""

from enum import StrEnum
from typing import Self


class Code(StrEnum):
    meaning: str

    def __new__(cls, code: str, meaning: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    TOO_LARGE = "GAM101", "file larger than 1 MiB"
    ENCODING = "GAM102", "not UTF-8"
    CHARACTER = "GAM103", "invisible or control character"
    LINE_END = "GAM104", "carriage return without line feed"
    TOO_MANY_DOCUMENTS = "GAM105", "more than 2,000 documents in a file"
    TOO_DEEP = "GAM106", "nested deeper than 32 levels"
    SYNTAX = "GAM107", "not YAML"
    TAB = "GAM108", "tab used to indent"
    DUPLICATE_KEY = "GAM109", "key given twice"
    KEY_NOT_TEXT = "GAM110", "key that is not a text"
    ALIAS = "GAM111", "anchor, alias or merge key"
    TAG = "GAM112", "explicit tag"
    DIRECTIVE = "GAM113", "directive"
    LEADING_ZERO = "GAM114", "number with a leading zero"
    NUMBER = "GAM115", "number that has no exact form"
    NOT_A_MAP = "GAM116", "document that is not a map"
    RESERVED_KEY = "GAM117", "reserved key"
    MORE = "GAM118", "further problems left out"
    OUTSIDE = "GAM121", "link that leads out of the project"
    UNREADABLE = "GAM122", "file that cannot be read"
    TREE_TOO_LARGE = "GAM123", "project larger than 256 MiB"

    API_VERSION = "GAM201", "missing or unknown apiVersion"
    KIND = "GAM202", "missing or unknown kind"
    NAME = "GAM203", "malformed name"
    DECLARED_TWICE = "GAM204", "address declared twice"
    PLUGIN = "GAM205", "kind that cannot be loaded"
    MISPLACED = "GAM206", "document in the wrong place"

    ENVIRONMENT = "GAM301", "unknown or undeclared environment"
    PATCH_TARGET = "GAM302", "patch that hits nothing"
    PATCH_NULL = "GAM303", "patch that removes nothing"
    PATCH_CONFLICT = "GAM304", "patches that contradict each other"
    EXPRESSION = "GAM311", "malformed expression"
    UNKNOWN_EXPRESSION = "GAM312", "unknown expression"
    VARIABLE = "GAM313", "unknown variable"
    VARIABLE_CYCLE = "GAM314", "variable that needs itself"
    SECRET_UNDECLARED = "GAM315", "undeclared secret that looks like a declared one"
    SECRET_UNREADABLE = "GAM316", "secret that cannot be read"
    OUTPUT = "GAM317", "unknown output"
    NOT_A_TEXT = "GAM318", "map, list or nothing inside a text"
    EXPANSION = "GAM319", "expression that grows too large"
    LEAF_MISPLACED = "GAM320", "value that is not known yet where it must be"

    MISSING = "GAM401", "missing field"
    UNKNOWN_FIELD = "GAM402", "unknown field"
    TYPE = "GAM403", "value of the wrong type"
    CHOICE = "GAM404", "value that is none of those allowed"
    RANGE = "GAM405", "number or length out of range"
    FORM = "GAM406", "value of the wrong form"
    RULE = "GAM407", "rule of the kind broken"

    REFERENCE = "GAM501", "reference to a resource that does not exist"
    AMBIGUOUS = "GAM502", "reference that could mean two resources"
    CYCLE = "GAM503", "resources that need each other"
    MOVED = "GAM504", "move that contradicts the specs"
    ADDRESS = "GAM505", "malformed address"
    PATH = "GAM506", "malformed path"
