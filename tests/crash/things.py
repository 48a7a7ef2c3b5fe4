"""The scenario in the world of things: a project as it was, what happened since, and what it becomes.

Every way a plan can act is in it: creations in a chain and side by side, updates, replacements in
both orders with children that go along, deletions in a chain, moves, adoptions, a thing to forget, a
changed secret, outputs that flow on, drift, and things that are deleted outside.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg2

from gamma_orch.core.canonical import canonical
from gamma_orch.testing.world import World
from tests.cli.gamma import Warm, write

ENVIRONMENT = """\
apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  secrets:
    password: {env: THING_PASSWORD}
"""
CANARY = "canary-of-things"
FILES = ("environments/dev/environment.yaml", "specs/things.yaml")


def thing(name: str, lifecycle: str = "", moved: str = "", **spec: str | int) -> str:
    said = ", ".join(f"{key}: {value!r}" for key, value in spec.items())
    extra = f", lifecycle: {{{lifecycle}}}" if lifecycle else ""
    extra += f", moved: {{from: Thing/{moved}}}" if moved else ""
    return f"---\napiVersion: gamma/v1\nkind: Thing\nmetadata: {{name: {name}{extra}}}\nspec: {{{said}}}\n"


def _common() -> list[str]:
    return [
        thing("kept", value="as it is"),
        thing("guarded", lifecycle="protect: true", value="as it is"),
        thing("drifts", value="declared", size=1),
        thing("drifts-too", value="declared", after="drifts"),
        thing("lost", value="comes back"),
        thing("lost-below", value="comes back", after="lost"),
        thing("rotated", secret="${secret.password}"),
    ]


def before() -> dict[str, str]:
    """The project as it was applied last."""
    things = _common()
    things += [thing(f"grows-{n}", value="old", size=n) for n in range(5)]
    things += [thing("root", fixed="old"), thing("branch", after="root"), thing("leaf", after="branch")]
    things += [thing("swapped", lifecycle="replace: createFirst", fixed="old", value="v")]
    things += [thing("reader", upstream="${Thing/swapped.id}")]
    things += [thing("going-1"), thing("going-2", after="going-1"), thing("going-3", after="going-2")]
    things += [thing("going-alone"), thing("let-go", lifecycle="retain: true")]
    things += [thing("old-name", value="same"), thing("old-place", value="before")]
    return {FILES[0]: ENVIRONMENT, FILES[1]: "".join(things)}


def after() -> dict[str, str]:
    """The project as it is to be applied."""
    things = _common()
    things += [thing(f"grows-{n}", value="new", size=n) for n in range(5)]
    things += [thing("root", fixed="new"), thing("branch", after="root"), thing("leaf", after="branch")]
    things += [thing("swapped", lifecycle="replace: createFirst", fixed="new", value="v")]
    things += [thing("reader", upstream="${Thing/swapped.id}")]
    things += [thing("new-name", moved="old-name", value="same")]
    things += [thing("new-place", moved="old-place", value="after")]
    things += [thing("found", value="as found"), thing("found-other", value="as declared")]
    things += [thing("chain-0", value="0")]
    things += [thing(f"chain-{n}", value=f"after ${{Thing/chain-{n - 1}.id}}") for n in range(1, 6)]
    things += [thing(f"wide-{n}", size=n, after="chain-1") for n in range(6)]
    things += [thing("hidden", secret="${secret.password}", upstream="${Thing/chain-5.value}")]
    return {FILES[0]: ENVIRONMENT, FILES[1]: "".join(things)}


def meanwhile(world: World) -> None:
    """What others did to the world since."""
    fields = {name: dict(thing["fields"]) for name, thing in world.things.items()}
    world.effect("update", "drifts", {**fields["drifts"], "size": 7})
    world.effect("update", "drifts-too", {**fields["drifts-too"], "value": "by hand", "note": "theirs"})
    world.effect("delete", "lost-below", {})
    world.effect("delete", "lost", {})
    world.effect("create", "found", {"value": "as found", "size": 0, "fixed": ""})
    world.effect("create", "found-other", {"value": "as found", "size": 3, "fixed": ""})


def password(version: int) -> Mapping[str, str]:
    return {"THING_PASSWORD": f"{CANARY}-{version}"}


def file_of(project: Path) -> Path:
    return project / ".gamma" / "dev" / "world.jsonl"


def effects(project: Path, after: int = 0) -> list[tuple[str, str]]:
    """The log's lines beyond a position: each effect's key, and the effect."""
    log = file_of(project).read_bytes()[after:] if file_of(project).exists() else b""
    lines = [json.loads(line) for line in log.splitlines()]
    return [(line["key"], canonical({k: v for k, v in line.items() if k != "key"})) for line in lines]


class Things:
    """With the ledger in a file of the project."""

    steps = 30
    canary = CANARY
    unseen = frozenset({"Thing/rotated"})

    def __init__(self, gamma: Warm, place: Path) -> None:
        self.gamma = gamma
        self._place = place
        self._before = place / "before"
        project = write(place / "before", before())
        done = gamma(project, "apply", "--yes", **{**self.variables(project), **password(1)})
        assert done.code == 0, done.err
        meanwhile(World(file_of(project)))
        write(project, after())
        self._prior = len(file_of(project).read_bytes())

    def fresh(self) -> Path:
        project = self._place / "run"
        shutil.copytree(self._before, project)
        return project

    def variables(self, project: Path) -> Mapping[str, str]:
        return password(2)

    def ledger(self, project: Path) -> str:
        return f"sqlite:///{project}/.gamma/ledger.db"

    def world(self, project: Path) -> Any:
        return dict(World(file_of(project)).things)

    def effects(self, project: Path) -> Sequence[tuple[str, str]]:
        return effects(project, self._prior)

    def papers(self, project: Path) -> Iterable[Path]:
        return [file for file in project.rglob("*") if file.is_file()]

    def done(self, project: Path) -> None:
        shutil.rmtree(project)


class FirstTime(Things):
    """Nothing was ever applied here: the ledger's tables are still to be made."""

    steps = 3
    unseen = frozenset[str]()

    def __init__(self, gamma: Warm, place: Path) -> None:
        self.gamma = gamma
        self._place = place
        self._prior = 0
        few = [
            thing("a"),
            thing("b", secret="${secret.password}", after="a"),
            thing("c", upstream="${Thing/b.id}"),
        ]
        self._before = write(place / "before", {FILES[0]: ENVIRONMENT, FILES[1]: "".join(few)})

    def variables(self, project: Path) -> Mapping[str, str]:
        # Else each project would make up a key of its own, and no two ledgers were the same.
        return {**password(1), "GAMMA_KEY": "a key that machines share"}


class LedgerOnPostgres(Things):
    """With the ledger on a server, as machines that share one have it."""

    def __init__(self, gamma: Warm, place: Path, server: str) -> None:
        """`server` is a URL that ends with a slash."""
        self._server = server
        self._admin("CREATE DATABASE before")
        super().__init__(gamma, place)

    def fresh(self) -> Path:
        self._admin("CREATE DATABASE run TEMPLATE before")
        return super().fresh()

    def variables(self, project: Path) -> Mapping[str, str]:
        return {**password(2), "GAMMA_LEDGER": self.ledger(project)}

    def ledger(self, project: Path) -> str:
        return f"{self._server}{project.name}"

    def done(self, project: Path) -> None:
        super().done(project)
        self._admin("DROP DATABASE run WITH (FORCE)")

    def _admin(self, statement: str) -> None:
        connection = psycopg2.connect(f"{self._server}postgres")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()
