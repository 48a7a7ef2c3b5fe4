"""One pass of observation, the same for every kind of the family: read all places, then look.

A place is a server and a database; each is read once a pass, all of them side by side. What goes
wrong with one place or one object makes those objects `Unreadable` and spoils no other.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from gamma_orch.core.address import Address
from gamma_orch.core.kind import Fields
from gamma_orch.core.observation import Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, GammaError, Permanent, ProviderError, Task
from gamma_orch.kinds.database import catalog, marks
from gamma_orch.kinds.database.catalog import Catalog
from gamma_orch.targets import MissingDatabase, Targets

Place = tuple[str, str | None]  # server, database; None: the maintenance database


def plain(name: str) -> str:
    """The name in PostgreSQL that a resource's own name stands for."""
    return name.replace("-", "_").replace(".", "_")


def asked(task: Task) -> Asked:
    """The question whose answer a task rests on."""
    return Asked(task.address, task.fields or None, task.recorded)


class World:
    """What the pass has read."""

    def __init__(self, read: Mapping[Place, Catalog | ProviderError]) -> None:
        self._read = read

    def at(self, server: str, database: str | None) -> Catalog | None:
        """The catalog of a place, None where there is no such database. Raises what reading it raised."""
        match self._read[server, database]:
            case MissingDatabase():
                return None
            case ProviderError() as error:
                raise error
            case found:
                return found

    def catalogs(self) -> Iterable[tuple[Place, Catalog]]:
        return [(place, found) for place, found in self._read.items() if isinstance(found, Catalog)]


async def reading(targets: Targets, places: Iterable[Place]) -> World:
    """Read all places at once."""
    import asyncio

    wanted = sorted(set(places), key=str)
    found = await asyncio.gather(*(_one(targets, place) for place in wanted))
    return World(dict(zip(wanted, found, strict=True)))


async def _one(targets: Targets, place: Place) -> Catalog | ProviderError:
    server, database = place
    try:
        return await catalog.read(targets.postgres(server), database)
    except ProviderError as error:
        return error


async def passing(
    targets: Targets,
    questions: Sequence[Asked],
    places: Callable[[Fields], Iterable[Place]],
    look: Callable[[Asked, World], Awaitable[Observation]],
    extras: Callable[[Place, Catalog], Mapping[Address, Seen]],
) -> Mapping[Address, Observation]:
    """Observe. `places` are those that fields lead to, `look` finds one object in what was read, and
    `extras` are all objects of a place that carry a mark of this kind."""
    every = [fields for one in questions for fields in (one.recorded, one.wanted) if fields]
    world = await reading(targets, [place for fields in every for place in places(fields)])
    answers: dict[Address, Observation] = {}
    for place, found in world.catalogs():
        answers |= extras(place, found)
    for one in questions:
        answers[one.address] = await _looked(one, world, look)
    return answers


async def _looked(
    one: Asked, world: World, look: Callable[[Asked, World], Awaitable[Observation]]
) -> Observation:
    try:
        return await look(one, world)
    except GammaError as error:
        return Unreadable(str(error))
    except Exception as error:  # noqa: BLE001 - one object that cannot be understood must not hide the others
        return Unreadable(f"{one.address} could not be compared: {type(error).__name__}: {error}")


class Marked(Protocol):
    @property
    def comment(self) -> str | None: ...


Row = TypeVar("Row", bound=Marked)
Name = TypeVar("Name")


def find(
    rows: Mapping[Name, Row], one: Asked, environment: str, name: Callable[[Fields], Name]
) -> Row | None:
    """The object that an address means, among those of a place.

    The one that carries its mark, whatever it is called by now; else the one with the recorded name,
    else the one with the wanted name.
    """
    known = marks.known_as(one.address, one.recorded)
    names = [name(fields) for fields in (one.recorded, one.wanted) if fields]
    marked = [key for key, row in rows.items() if marks.shown(row.comment, environment) in known]
    for key in [*(n for n in names if n in marked), *marked, *names]:
        if key in rows:
            return rows[key]
    return None


def locate(
    one: Asked,
    world: World,
    places: Callable[[Fields], Iterable[Place]],
    look: Callable[[Catalog], Row | None],
) -> tuple[Place, Row] | None:
    """The object in the place where it was recorded, else in the place where it is wanted."""
    for fields in (one.recorded, one.wanted):
        for place in places(fields) if fields else ():
            here = world.at(*place)
            row = look(here) if here else None
            if row is not None:
                return place, row
    return None


def check_stays(one: Asked, seen: Fields, names: Sequence[str], instead: str) -> None:
    """Raises Permanent where the spec gives an object that may hold data another name or place.

    Gamma does not move it, because what rests on it (tables of a schema, indexes of a table, people's
    queries) would have to move in the same moment. Done by hand, it is found again by its mark.
    """
    wanted = one.wanted or {}
    for name in names:
        value = wanted.get(name, seen[name])
        if isinstance(value, str) and value != seen[name]:
            raise Permanent(
                f"{one.address} has {name} {seen[name]!r}, the spec says {value!r}, and Gamma does not "
                f"rename or move what may hold data. {instead}"
            )


def marked_extras(
    rows: Mapping[Name, Row], kind: str, environment: str, fields: Callable[[Row], Fields]
) -> dict[Address, Seen]:
    """All objects that carry a mark of this kind and environment."""
    found: dict[Address, Seen] = {}
    for row in rows.values():
        _, mark = marks.split(row.comment)
        if mark is not None and mark.environment == environment and mark.owner.startswith(f"{kind}/"):
            try:
                found[Address.parse(mark.owner)] = Seen({"mark": mark.owner, **fields(row)})
            except ValueError:
                continue
    return found
