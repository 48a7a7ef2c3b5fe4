"""Bringing a server's settings to what specs say: ALTER SYSTEM, reload, and a restart where it must be.

Only what a spec names, or Gamma once set, is looked at or touched. Called by `database`, with the lock
of the server's settings held.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.provider import Permanent, Task
from gamma_orch.kinds.database import catalog, settings, sql
from gamma_orch.kinds.database.catalog import SettingRow

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Postgres

RELOAD_PATIENCE = 2.0  # seconds; pg_reload_conf returns before the server has read its files
ROUNDS = 3  # set, restart, and then what an extension loaded by that restart brings


def given(fields: Fields) -> Iterable[tuple[str, Json]]:
    """The settings that are values by now, not leaves."""
    return [
        (key, value)
        for key, value in fields.get("settings", {}).items()
        if isinstance(value, (str, int, float, bool))
    ]


def observed(wanted: Fields, recorded: Fields, rows: Mapping[str, SettingRow]) -> dict[str, Json]:
    """The named settings, each as it was written where that still means the same."""
    asked, applied = dict(given(wanted)), dict(given(recorded))
    found: dict[str, Json] = {}
    for name in sorted({*wanted.get("settings", {}), *applied}):
        row = settings.row_of(name, rows)
        if row is None or (name not in wanted.get("settings", {}) and not row.altered):
            continue
        for value in (asked.get(name), applied.get(name)):
            if value is not None and settings.same(value, row.setting, row, name):
                found[name] = value
                break
        else:
            found[name] = row.shown
    return found


def released_of(recorded: Fields, wanted: Fields, rows: Mapping[str, SettingRow]) -> list[str]:
    """The settings that Gamma set, that are no longer in the spec, and that nobody set otherwise since."""
    return [
        name
        for name, value in given(recorded)
        if name not in wanted.get("settings", {})
        and (row := settings.row_of(name, rows)) is not None
        and row.altered
        and (settings.same(value, row.setting, row, name) or row.pending_restart)
    ]


async def converge(postgres: "Postgres", task: Task) -> None:
    name = task.fields["name"]
    for _ in range(ROUNDS):
        rows = (await catalog.read(postgres, name)).settings
        different = _different(task.fields, rows)
        released = released_of(task.recorded or {}, task.fields, rows)
        if not different and not released:
            return
        wrong = [settings.problem(key, value, rows) for key, value in different.items()]
        if any(wrong):
            raise Permanent(" ".join(text for text in wrong if text))
        # What an extension brings is known only once it is loaded: everything else goes first.
        ready = {key: value for key, value in different.items() if settings.row_of(key, rows)} or different
        await write(postgres, ready, released)
        waiting = await _await_reload(postgres, name, ready, released)
        if waiting:
            await _restart(postgres, task, waiting)
    rows = (await catalog.read(postgres, name)).settings
    left = _different(task.fields, rows)
    if left:
        shown = ", ".join(
            f"{key} (set by {row.source})" for key in left if (row := settings.row_of(key, rows))
        )
        raise Permanent(
            f"On {postgres.title} settings do not take effect: {shown or ', '.join(left)}. "
            "Something stronger than ALTER SYSTEM sets them (a role, a database, the command line), "
            "or their extension is not loaded."
        )


def _different(fields: Fields, rows: Mapping[str, SettingRow]) -> dict[str, Json]:
    return {
        name: value
        for name, value in given(fields)
        if (row := settings.row_of(name, rows)) is None or not settings.same(value, row.setting, row, name)
    }


async def write(postgres: "Postgres", changed: Mapping[str, Json], released: Sequence[str]) -> None:
    """ALTER SYSTEM refuses to run in a transaction, and several statements at once are one."""
    if not changed and not released:
        return
    async with postgres.connection() as connection:
        for name, value in changed.items():
            text = settings.written(value)
            parts = settings.items(text) if name.casefold() in settings.LISTS else [text]
            values = ", ".join(sql.literal(part) for part in parts) or "''"
            await connection.execute(f"ALTER SYSTEM SET {_name(name)} = {values}")
        for name in released:
            await connection.execute(f"ALTER SYSTEM RESET {_name(name)}")
        await connection.execute("SELECT pg_reload_conf()")


def _name(setting: str) -> str:
    return ".".join(sql.ident(part) for part in setting.split("."))


async def _await_reload(
    postgres: "Postgres", database: str, changed: Mapping[str, Json], released: Sequence[str]
) -> list[str]:
    """Wait until the server has read its files. Gives the settings that wait for a restart."""
    import asyncio

    deadline = asyncio.get_running_loop().time() + RELOAD_PATIENCE
    while True:
        rows = (await catalog.read(postgres, database)).settings
        known = {key: row for key in (*changed, *released) if (row := settings.row_of(key, rows))}
        waiting = sorted(key for key, row in known.items() if row.pending_restart)
        unread = [
            key
            for key, row in known.items()
            if key not in waiting
            and (not settings.same(changed[key], row.setting, row, key) if key in changed else row.altered)
        ]
        # A library that is preloaded brings settings that cannot be seen before the restart.
        if not unread or asyncio.get_running_loop().time() > deadline:
            return waiting
        await asyncio.sleep(0.05)


async def _restart(postgres: "Postgres", task: Task, waiting: Sequence[str]) -> None:
    allowed = task.fields.get("allowRestart")
    if allowed is None:
        allowed = postgres.embedded
    names = ", ".join(waiting)
    if not allowed or not postgres.embedded:
        whose = "its operator must restart it" if allowed else "restart it, or say `allowRestart: true`"
        raise Permanent(
            f"{names} was written, and takes effect when {postgres.title} is restarted: "
            f"{whose}, then apply again."
        )
    await postgres.restart()
