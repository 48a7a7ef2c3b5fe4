"""A crash suite, whatever the world is: kill at a point, resume, and ask whether anybody can tell.

A `Scenario` is a project with a world in a prior state and a plan still to be carried out. `expect`
carries it out undisturbed; `check` carries it out with deaths and compares. What must hold:

- after the death, every effect in the world has its Begun in the ledger (law 1);
- a plain `apply` then ends well, and the `plan` after it has no steps (law 4);
- the world and the ledger's records are those of the undisturbed run;
- no effect was done twice, nor asked for twice where the first attempt had an answer;
- the ledger's projection is the fold of its log, and no step is left open;
- no secret stands in any file of the project.
"""

import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gamma_orch.core.event import Event, Type
from gamma_orch.core.provider import Opcode
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import events, present, verify
from gamma_orch.testing.crash import AT, LOG
from tests.cli.gamma import THING, Done, Warm

DEAD = -signal.SIGKILL
WATCHED = f"{THING},gamma_orch.testing.crash"


class Scenario(Protocol):
    gamma: Warm
    steps: int  # how many the plan has at least
    unseen: frozenset[str]  # addresses whose change nobody can see: only these may be asked for again
    canary: str  # how every secret begins

    def fresh(self) -> Path:
        """The project in its prior state, with its world, where no run was yet."""
        ...

    def variables(self, project: Path) -> Mapping[str, str]:
        """The environment variables of a command there."""
        ...

    def ledger(self, project: Path) -> str:
        """The ledger's URL."""
        ...

    def world(self, project: Path) -> Any:
        """All of the world that must come out the same."""
        ...

    def effects(self, project: Path) -> Sequence[tuple[str, str]]:
        """Key and description of each effect since the prior state that must happen once. The key is
        empty where the world keeps none."""
        ...

    def papers(self, project: Path) -> Iterable[Path]:
        """The files that a secret must not be in."""
        ...

    def done(self, project: Path) -> None:
        """Give back what a run took."""
        ...


@dataclass(frozen=True, slots=True)
class Expected:
    """What the undisturbed run came to."""

    points: Sequence[str]
    world: Any
    records: Mapping[str, Any]
    effects: Counter[str]


@dataclass(slots=True)
class Run:
    """One project from its prior state to its end, with deaths on the way."""

    scenario: Scenario
    project: Path
    answered: set[str] = field(default_factory=set)  # effects to which a provider said: done
    again: set[str] = field(default_factory=set)  # and that it was asked for once more
    story: list[str] = field(default_factory=list)

    def apply(self, at: int | str | None = None) -> Done:
        """`gamma apply`, killed at a point if one is given."""
        log = self.project / ".points"
        log.unlink(missing_ok=True)
        plugins = {"GAMMA_PLUGINS": WATCHED, LOG: str(log)} | ({AT: str(at)} if at else {})
        done = self.gamma("apply", "--yes", **plugins)
        points = self.points()
        self.again |= {what for when, what in calls(points) if when == "before" and what in self.answered}
        self.answered |= {what for when, what in calls(points) if when == "after"}
        self.story.append(f"killed at {at}, {points[-1]}" if done.code == DEAD else f"exit {done.code}")
        return done

    def points(self) -> list[str]:
        return (self.project / ".points").read_text(encoding="utf-8").splitlines()

    def gamma(self, *arguments: str, **variables: str) -> Done:
        return self.scenario.gamma(
            self.project, *arguments, **{**self.scenario.variables(self.project), **variables}
        )

    def log(self) -> list[Event]:
        """The ledger's events, of which its projection is the fold at any moment. Read from a copy:
        the recovery of what a death left is Gamma's."""
        url, aside = self.scenario.ledger(self.project), self.project / ".aside"
        if url.startswith("sqlite:///"):
            aside.mkdir()
            for file in Path(url.removeprefix("sqlite:///")).parent.glob("ledger.db*"):
                shutil.copy(file, aside)
            url = f"sqlite:///{aside}/ledger.db"
        database = Database(url)
        try:
            assert verify(database, "dev") == [], self.story
            return events(database, "dev")
        finally:
            database.close()
            shutil.rmtree(aside, ignore_errors=True)

    def check_death(self) -> None:
        """Law 1: whatever was asked for, and whatever happened, was written down before."""
        begun = {event.step for event in self.log() if event.type is Type.BEGUN}
        for _, what in calls(self.points()):
            assert what.split()[2] in begun, f"{what} was asked for without a Begun: {self.story}"
        for key, what in self.scenario.effects(self.project):
            assert not key or key in begun, f"{what} happened without a Begun: {self.story}"

    def check_end(self, expected: Expected) -> None:
        story = "; ".join(self.story)
        again = self.gamma("plan", "-o", "json")
        assert (again.code, json.loads(again.out)["steps"]) == (0, []), f"{story}\n{again.out}{again.err}"
        found = self.scenario.world(self.project)
        assert found == expected.world, f"{story}: {difference(found, expected.world)}"
        assert records(self.scenario.ledger(self.project)) == expected.records, story
        done = Counter(what for _, what in self.scenario.effects(self.project))
        assert done == expected.effects, f"{story}: {done - expected.effects} {expected.effects - done}"
        twice = {what for what in self.again if what.split()[1] not in self.scenario.unseen}
        assert not twice, f"asked for again after the answer: {story}"
        for file in self.scenario.papers(self.project):
            assert self.scenario.canary.encode() not in file.read_bytes(), f"{file}: {story}"


def difference(found: Any, wanted: Any) -> str:
    """Where two worlds differ, and no more."""
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return f"{found!r} instead of {wanted!r}"
    keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    return ", ".join(f"{key}: {difference(found.get(key), wanted.get(key))}" for key in keys)


def calls(points: Sequence[str]) -> list[tuple[str, str]]:
    """The calls of providers that are effects: before or after, and `update Kind/name key`."""
    parted = [point.partition(" ")[::2] for point in points]
    opcodes = tuple(f"{opcode} " for opcode in Opcode)
    return [(when, what) for when, what in parted if when in ("before", "after") and what.startswith(opcodes)]


def records(ledger: str) -> dict[str, Any]:
    """The ledger's last word on everything; that it is in order is asserted on the way."""
    database = Database(ledger)
    try:
        assert verify(database, "dev") == []
        entries = present(database, "dev")[0].entries
    finally:
        database.close()
    for address, entry in entries.items():
        assert entry.begun is None, f"{address} is left open"
        assert not entry.error, f"{address}: {entry.error}"
    return {str(address): entry.record and entry.record.encoded() for address, entry in entries.items()}


def expect(scenario: Scenario) -> Expected:
    """Carry the plan out undisturbed."""
    project = scenario.fresh()
    try:
        run = Run(scenario, project)
        done = run.apply()
        assert done.code == 0, done.err
        steps = [event for event in run.log() if event.type is Type.PLANNED][-1].data["summary"]
        assert sum(steps.values()) - steps["keep"] >= scenario.steps, steps
        expected = Expected(
            run.points(),
            scenario.world(project),
            records(scenario.ledger(project)),
            Counter(what for _, what in scenario.effects(project)),
        )
        run.check_end(expected)
        return expected
    finally:
        scenario.done(project)


def check(scenario: Scenario, expected: Expected, deaths: Sequence[int | str]) -> bool:
    """Die at these points, one after the other, then resume. False where the first was never reached."""
    project = scenario.fresh()
    try:
        run = Run(scenario, project)
        for at in deaths:
            done = run.apply(at)
            if done.code == 0:  # it ended before that point
                break
            assert done.code == DEAD, f"{run.story}: {done.err}"
            run.check_death()
        else:
            done = run.apply()
            assert done.code == 0, f"{run.story}\n{done.out}{done.err}"
        run.check_end(expected)
        return len(run.story) > 1
    finally:
        scenario.done(project)
