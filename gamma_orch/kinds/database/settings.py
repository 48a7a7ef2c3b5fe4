"""Settings of a server: compared by unit and type, and checked before anything is changed.

PostgreSQL gives every setting in its own base unit (`work_mem` in kB, `shared_buffers` in pages of
8 kB), so 16MB, 16384kB and 2048 pages are one value. Pure; called by `database`.
"""

import re
from collections.abc import Mapping

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import did_you_mean, nearest
from gamma_orch.kinds.database.catalog import SettingRow

BYTES = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
MICROSECONDS = {
    "us": 1,
    "ms": 1000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
UNITS = (*BYTES, *MICROSECONDS)
# The words that people write for units, beside a wrong case.
WORDS = {
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("byte", "bytes"), "B"),
    **dict.fromkeys(("K", "KiB"), "kB"),
    **dict.fromkeys(("M", "MiB", "MBs"), "MB"),
    **dict.fromkeys(("G", "GiB", "GBs"), "GB"),
    **dict.fromkeys(("T", "TiB"), "TB"),
}
NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+|0[xX][0-9a-fA-F]+))\s*([A-Za-z]*)\s*")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")

# Settings that are lists of names: a single quoted text would be taken for one name with commas.
LISTS = frozenset(
    {
        "createrole_self_grant",
        "datestyle",
        "debug_io_direct",
        "listen_addresses",
        "local_preload_libraries",
        "log_destination",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
        "wal_consistency_checking",
    }
)
# Where the server's own files are is said when it is started, never by ALTER SYSTEM.
FIXED = frozenset(
    {"allow_alter_system", "config_file", "data_directory", "external_pid_file", "hba_file", "ident_file"}
)

# The few names that pg_settings itself has in mixed case.
MIXED = {"datestyle": "DateStyle", "intervalstyle": "IntervalStyle", "timezone": "TimeZone"}
# Values that PostgreSQL reads back under another name.
SYNONYMS = {("wal_compression", "on"): "pglz"}

TRUE = frozenset({"on", "true", "yes", "1", "t", "y"})
FALSE = frozenset({"off", "false", "no", "0", "f", "n"})


def shape_error(name: str, value: Json) -> str | None:
    """What is wrong with a setting as it is written, told without a server."""
    if not NAME.fullmatch(name):
        return f"{name!r} is no name of a PostgreSQL setting"
    if name.casefold() in FIXED:
        return f"{name} is fixed when the server is started and cannot be set here"
    if not isinstance(value, str):
        return None
    match = NUMBER.fullmatch(value)
    if match is None or not match[2] or match[2] in UNITS:
        return None
    same_letters = next((unit for unit in UNITS if unit.casefold() == match[2].casefold()), None)
    meant = WORDS.get(match[2]) or WORDS.get(match[2].lower()) or same_letters
    if meant is None:
        return None
    return (
        f"{value!r} has {match[2]!r}, which is no unit of PostgreSQL's; did you mean {match[1]}{meant}? "
        f"The units are {', '.join(UNITS)}"
    )


def problem(name: str, value: Json, rows: Mapping[str, SettingRow]) -> str | None:
    """What is wrong with a setting on this server, in a sentence, or None."""
    row = row_of(name, rows)
    if row is None:
        if "." in name:
            return None  # of an extension that is not loaded yet: nobody can tell
        hint = did_you_mean(name, rows)
        return f"Setting {name} does not exist on this server{': ' + hint if hint else ''}."
    given = f"Setting {name}: {written(value)!r}"
    if row.context == "internal":
        return f"{given} cannot be set; PostgreSQL only reports it."
    if row.source == "command line" and not same(value, row.setting, row, name):
        return f"{given} has no effect: the server was started with {name}={row.shown} on its command line."
    return _value_problem(given, value, row)


def row_of(name: str, rows: Mapping[str, SettingRow]) -> SettingRow | None:
    """The row of a setting, whose name may be written in any case."""
    return rows.get(name) or rows.get(name.casefold()) or rows.get(MIXED.get(name.casefold(), name))


def _value_problem(given: str, value: Json, row: SettingRow) -> str | None:
    match row.vartype:
        case "bool":
            return None if truth(value) is not None else f"{given} is neither on nor off."
        case "enum":
            known = row.enumvals or []
            text = written(value).casefold()
            if text in known or (truth(value) is not None and {"on", "off"} & set(known)):
                return None
            near = nearest(text, known)
            hint = f"did you mean {near!r}? " if near else ""
            return f"{given} is not one of its values; {hint}they are {', '.join(known)}."
        case "integer" | "real":
            number = in_base(value, row)
            if number is None:
                units = _units(row)
                allowed = f"a number with one of the units {', '.join(units)}" if units else "a plain number"
                return f"{given} is not {allowed}."
            low, high = float(row.min_val or "-inf"), float(row.max_val or "inf")
            if not low <= number <= high:
                unit = f" {row.unit}" if row.unit else ""
                return f"{given} is out of range; it goes from {row.min_val} to {row.max_val}{unit}."
    return None


def same(value: Json, live: str | None, row: SettingRow, name: str) -> bool:
    """Whether a written value means what the server has."""
    if live is None:
        return False
    match row.vartype:
        case "bool":
            return truth(value) is not None and truth(value) == truth(live)
        case "enum":
            text = written(value).casefold()
            text = SYNONYMS.get((name.casefold(), "on" if truth(value) else text), text)
            return text == live.casefold() or (truth(value) is not None and truth(value) == truth(live))
        case "integer" | "real":
            wanted, found = in_base(value, row), in_base(live, row)
            return wanted is not None and wanted == found
        case _ if name.casefold() in LISTS:
            return items(written(value)) == items(live)
        case _:
            return written(value) == live


def in_base(value: Json, row: SettingRow) -> float | None:
    """A value in the setting's base unit, rounded where the setting is a whole number."""
    match = NUMBER.fullmatch(written(value))
    if match is None or isinstance(value, bool):
        return None
    number = float(int(match[1], 16)) if "x" in match[1].lower() else float(match[1])
    if match[2]:
        units = _units(row)
        if match[2] not in units:
            return None
        number *= units[match[2]]
        # PostgreSQL takes 0.01GB for 10MB: it rounds to the next smaller unit, half to even as we do.
        smaller = [factor for factor in units.values() if factor < units[match[2]]]
        if smaller:
            number = round(number / max(smaller)) * max(smaller)
    return float(round(number)) if row.vartype == "integer" else number


def _units(row: SettingRow) -> dict[str, float]:
    """The units that a setting may be written in, each as a multiple of its base unit."""
    base = re.fullmatch(r"(\d*)([A-Za-z]+)", row.unit or "")
    if base is None:
        return {}
    family = BYTES if base[2] in BYTES else MICROSECONDS
    size = int(base[1] or 1) * family[base[2]]
    return {unit: factor / size for unit, factor in family.items()}


def truth(value: Json) -> bool | None:
    text = written(value).casefold()
    return True if text in TRUE else False if text in FALSE else None


def written(value: Json) -> str:
    """A value as PostgreSQL writes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def items(text: str) -> list[str]:
    """The names of a list setting, unquoted, their order kept: libraries are loaded in it."""
    found = re.findall(r'\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(?:,|$)', text)
    names = [quoted.replace('""', '"') or bare.strip() for quoted, bare in found]
    return [name for name in names if name]
