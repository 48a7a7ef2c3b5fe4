"""The ten laws, after every move of a random history: edits, drift, crashes, lost replies, stale
reads, a second worker, clock jumps, renames, protection. The engine and the store are the real ones.
"""

import asyncio
import json
import os
import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import canonical
from gamma_orch.core.change import Action
from gamma_orch.core.event import Event, Type
from gamma_orch.core.leaves import Ref, Secret
from gamma_orch.core.plan import Plan
from gamma_orch.core.planner import plan as make_plan
from gamma_orch.core.resource import Lifecycle, Replace, Resource
from gamma_orch.engine import converge, execute
from gamma_orch.engine.converge import Outcome, Site
from gamma_orch.engine.progress import Status
from gamma_orch.engine.secrets import Secrets
from gamma_orch.engine.world import World
from gamma_orch.spec.environment import SecretSource
from gamma_orch.store import lease as leases
from gamma_orch.store.database import Database
from gamma_orch.store.errors import LeaseLost, StoreError
from gamma_orch.store.ledger import Log, events, present, verify
from tests.world.memory import NAME, Killed, Memory, NoTargets, Stored, item_kind

NAMES = ["a", "b", "c", "d", "e"]
names = st.sampled_from(NAMES)
values = st.sampled_from(["1", "2", "3"])
CANARY = "canary-7f3e-secret-bytes"
# The history of a machine fits a memory file system; the laws of durability have a suite of their own.
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Laws(RuleBasedStateMachine):
    @initialize(order=st.sampled_from(Replace))
    def begin(self, order: Replace) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=SCRATCH))
        self.loop = asyncio.new_event_loop()
        self.database = Database(f"sqlite:///{self.folder}/ledger.db")
        self.memory = Memory(self.database, "dev")
        self.kind = item_kind(self.memory, order)
        self.clock = datetime(2026, 1, 1, tzinfo=UTC)
        self.desired: dict[Address, Resource] = {}
        self.secret_version = 0
        self.saved: Plan | None = None
        self.consented: set[str] = set()
        self._rotate()
        # Most of what can go wrong needs something to be there already.
        self.write("a", "1", "x", None)
        self.refer("b", "a")
        self.write("c", "1", "x", "b")
        self.use_secret("d")
        self.apply()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.database.close()
            self.loop.close()
            shutil.rmtree(self.folder)

    # -- edits ---------------------------------------------------------------------------------

    @rule(name=names, value=values, fixed=st.sampled_from(["x", "y"]), after=st.none() | names)
    def write(self, name: str, value: str, fixed: str, after: str | None) -> None:
        spec = {"value": value, "fixed": fixed}
        self._put(name, spec, [after] if after else [])

    @rule(name=names, upstream=names)
    def refer(self, name: str, upstream: str) -> None:
        spec = {"value": "1", "upstream": Ref(Address(NAME, upstream), "id")}
        self._put(name, spec, [upstream])

    @rule(name=names)
    def use_secret(self, name: str) -> None:
        self._put(name, {"value": "1", "secret": Secret("pw", self._digest())}, [])

    @rule()
    def rotate_secret(self) -> None:
        self.secret_version += 1
        self._rotate()
        digest = self._digest()
        for address, resource in self.desired.items():
            if "secret" in resource.spec:
                spec = {**resource.spec, "secret": Secret("pw", digest)}
                self.desired[address] = replace(resource, spec=spec)

    @rule(name=names, lifecycle=st.builds(Lifecycle, protect=st.booleans(), retain=st.booleans()))
    def set_lifecycle(self, name: str, lifecycle: Lifecycle) -> None:
        address = Address(NAME, name)
        if address in self.desired:
            self.desired[address] = replace(self.desired[address], lifecycle=lifecycle)

    @rule(name=names)
    def ignore_value(self, name: str) -> None:
        address = Address(NAME, name)
        if address in self.desired:
            lifecycle = Lifecycle(ignore=("spec.value",))
            self.desired[address] = replace(self.desired[address], lifecycle=lifecycle)

    @rule(name=names)
    def remove(self, name: str) -> None:
        address = Address(NAME, name)
        if not any(address in resource.needs for resource in self.desired.values()):
            self.desired.pop(address, None)

    @rule(old=names, new=names)
    def rename(self, old: str, new: str) -> None:
        source, goal = Address(NAME, old), Address(NAME, new)
        needed = any(source in resource.needs for resource in self.desired.values())
        if source in self.desired and goal not in self.desired and not needed:
            resource = self.desired.pop(source)
            self._free(goal)
            self.desired[goal] = replace(resource, address=goal, moved_from=source)

    # -- the world goes its own way -----------------------------------------------------------

    @rule(name=names, value=values, what=st.sampled_from(["change", "change", "delete", "create"]))
    def outside(self, name: str, value: str, what: str) -> None:
        there = name in self.memory.objects
        if what == "change" and there:
            self.memory.objects[name].fields["value"] = value
        elif what == "delete":
            self.memory.objects.pop(name, None)
        elif what == "create" and not there:
            self.memory.made += 1
            self.memory.objects[name] = Stored({"name": name, "value": value}, f"id-{self.memory.made}")

    @rule(name=names, fault=st.sampled_from(["unreadable", "permanent", "flaky", "lost", "stale"]))
    def trouble(self, name: str, fault: str) -> None:
        memory = self.memory
        match fault:
            case "unreadable":
                memory.unreadable.add(name)
            case "permanent":
                memory.permanent.add(name)
            case "flaky":
                memory.temporary[name] = 2
            case "lost":
                memory.lost_reply[name] = 1
            case "stale":
                memory.stale[name] = memory.observation(name)

    @rule()
    def trouble_ends(self) -> None:
        self.memory.unreadable.clear()
        self.memory.permanent.clear()
        self.memory.stale.clear()

    @rule(seconds=st.sampled_from([1, 20, 40, 3600]))
    def clock_jumps(self, seconds: int) -> None:
        self.clock += timedelta(seconds=seconds)

    # -- Gamma ---------------------------------------------------------------------------------

    @rule()
    def plan(self) -> None:
        effects = len(self.memory.effects)
        before = self._log_length()
        self.saved = self._look()
        assert len(self.memory.effects) == effects
        assert self._log_length() == before, "plan wrote to the ledger"

    @precondition(lambda self: self.saved is not None)
    @rule()
    def apply_saved(self) -> None:
        assert self.saved is not None
        effects = len(self.memory.effects)
        saved, self.saved = self.saved, None
        outcome = self._apply(saved)
        if outcome is None:
            return
        if outcome.refusals:
            assert len(self.memory.effects) == effects, "law 9: a refused plan had an effect"
        else:
            assert outcome.plan.id == saved.id, "law 9: another plan than the approved one was applied"

    @rule()
    def apply(self) -> None:
        self._check_converged(self._apply(None))

    @rule()
    def apply_again(self) -> None:
        """As often as any edit, or histories would be all edits."""
        self.apply()

    @rule(name=names)
    def apply_with_consent(self, name: str) -> None:
        self.consented.add(name)
        self._check_converged(self._apply(None, [Address(NAME, name)]))

    @rule(calls=st.integers(1, 12))
    def apply_and_die(self, calls: int) -> None:
        self.memory.kill_at = self.memory.calls + calls
        self._apply(None)
        self.memory.kill_at = None
        self.database.close()
        self.clock += timedelta(seconds=leases.SECONDS + 1)

    @rule()
    def second_worker(self) -> None:
        """A worker is paused, another takes over, the first wakes: it can append nothing (law 3)."""
        first = leases.acquire(self.database, "dev", "test", lambda: self.clock)
        log = Log(self.database, first, "first")
        self.clock += timedelta(seconds=leases.SECONDS + 1)
        second = leases.acquire(self.database, "dev", "test", lambda: self.clock)
        before = self._log_length()
        with pytest.raises(LeaseLost):
            log.append([Event(Type.APPROVED, Address(NAME, "a"), data={"consent": "ghost"})], self.clock)
        assert self._log_length() == before
        leases.release(self.database, first)  # no more than a shrug
        assert self.database.read("SELECT holder FROM environments")[0][0], "an old token freed the new lease"
        leases.release(self.database, second)

    # -- after every move ----------------------------------------------------------------------

    @invariant()
    def projection_is_the_fold(self) -> None:
        if hasattr(self, "database"):
            assert verify(self.database, "dev") == []

    @invariant()
    def tokens_never_go_back(self) -> None:
        if hasattr(self, "database"):
            tokens = [event.token for event in events(self.database, "dev")]
            assert tokens == sorted(tokens), "law 3"

    @invariant()
    def no_secret_anywhere(self) -> None:
        if hasattr(self, "database"):
            for file in self.folder.glob("ledger.db*"):
                assert CANARY.encode() not in file.read_bytes(), "law 7"

    @invariant()
    def same_inputs_same_plan(self) -> None:
        if not hasattr(self, "database"):
            return
        ledger, _ = present(self.database, "dev")
        observations = {a: self.memory.objects.get(a.name) for a in self.desired}
        seen = {a: (item and _seen(item)) or _absent() for a, item in observations.items()}
        shuffled = list(self.desired.items())
        random.Random(1).shuffle(shuffled)
        traits = {NAME: self.kind.traits}
        one = make_plan("dev", self.desired, ledger, seen, traits)
        two = make_plan("dev", dict(shuffled), ledger, dict(reversed(seen.items())), traits)
        assert one.id == two.id, "law 8"
        assert CANARY not in canonical(one.encoded()), "law 7"
        assert {c.address for c in one.changes} >= set(self.desired), "a resource without a change"
        assert all(change.reason for change in one.changes)

    # -- how ------------------------------------------------------------------------------------

    def _put(self, name: str, spec: Mapping[str, object], needs: list[str]) -> None:
        address = Address(NAME, name)
        # Only earlier names are needed, so that there is never a cycle.
        sound = [need for need in needs if need < name and Address(NAME, need) in self.desired]
        if needs and not sound:
            return
        self._free(address)
        leaves = any(isinstance(value, (Ref, Secret)) for value in spec.values())
        self.desired[address] = Resource(
            address, spec, tuple(Address(NAME, need) for need in sound), has_leaves=leaves
        )

    def _free(self, address: Address) -> None:
        """A name that is declared cannot be what another was moved from: the language refuses it."""
        for other, resource in self.desired.items():
            if resource.moved_from == address:
                self.desired[other] = replace(resource, moved_from=None)

    def _rotate(self) -> None:
        os.environ["GAMMA_TEST_PW"] = f"{CANARY}-{self.secret_version}"
        self.secrets = Secrets(self.folder, "dev", self.folder)
        self._digest()

    def _digest(self) -> str:
        return self.secrets.digest("pw", SecretSource(env="GAMMA_TEST_PW"))

    def _site(self) -> Site:
        self.memory.needs = {a.name: [n.name for n in r.needs] for a, r in self.desired.items()}
        world = World({NAME: self.kind}.get, NoTargets())  # type: ignore[arg-type]
        return Site("dev", dict(self.desired), "", self.database, world, self.secrets, lambda: self.clock)

    def _look(self) -> Plan:
        return self.loop.run_until_complete(converge.look(self._site())).plan

    def _apply(self, saved: Plan | None, consents: list[Address] | None = None) -> Outcome | None:
        before = len(self.memory.effects)
        self.was_stale = bool(self.memory.stale)  # then what was read may be older than the world
        try:
            outcome = self.loop.run_until_complete(converge.apply(self._site(), saved, consents or []))
        except Killed:
            return None
        except StoreError as error:
            raise AssertionError(f"the ledger refused: {error}") from error
        planned = {step.address.name for step in outcome.plan.steps}
        touched = {name for _, _, name in self.memory.effects[before:]}
        assert touched <= planned, "law 5"
        for result in outcome.results:
            text = json.dumps(result.encoded())
            assert CANARY not in text, "law 7"
        return outcome

    def _check_converged(self, outcome: Outcome | None) -> None:
        if outcome is None or outcome.refusals or self.was_stale:
            return
        again = self._look()
        troubled = {r.step.address for r in outcome.results if r.status is not Status.DONE}
        troubled |= {c.address for c in outcome.plan.changes if c.action in (Action.REFUSE, Action.WAIT)}
        bad = {a.name for a in troubled} & (self.memory.unreadable | self.memory.permanent)
        pending = {step.address for step in again.steps}
        if not troubled:
            assert pending == set(), f"law 4: {[(c.address, c.reason) for c in again.changes]}"
            for address, resource in self.desired.items():
                self._in_the_world(address, resource)
        # Law 10: whoever has no part in the trouble is done.
        involved = self._related({address.name for address in troubled} | bad)
        assert {a.name for a in pending} <= involved, "law 10"

    def _in_the_world(self, address: Address, resource: Resource) -> None:
        stored = self.memory.objects[address.name]
        if "value" in resource.spec and not resource.lifecycle.ignore:
            assert stored.fields["value"] == resource.spec["value"]
        if "secret" in resource.spec:
            assert stored.secret == f"{CANARY}-{self.secret_version}"
        if isinstance(upstream := resource.spec.get("upstream"), Ref):
            assert stored.fields["upstream"] == self.memory.objects[upstream.address.name].id

    def _related(self, roots: set[str]) -> set[str]:
        """The roots, and all above and below them, by what is wanted and by what is recorded."""
        links = {(a.name, n.name) for a, r in self.desired.items() for n in r.needs}
        ledger, _ = present(self.database, "dev")
        links |= {(a.name, n.name) for a, e in ledger.entries.items() if e.record for n in e.record.needs}
        links |= {(a.name, r.moved_from.name) for a, r in self.desired.items() if r.moved_from}
        found = set(roots)
        while True:
            more = {x for x, y in links if y in found} | {y for x, y in links if x in found}
            if more <= found:
                return found
            found |= more

    def _log_length(self) -> int:
        return len(events(self.database, "dev"))


def _seen(item: Stored):
    from gamma_orch.core.observation import Seen

    return Seen(dict(item.fields), {"id": item.id})


def _absent():
    from gamma_orch.core.observation import ABSENT

    return ABSENT


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "FIRST_WAIT", 0.0)


# A find is shrunk for minutes, and a night's run takes a while.
pytestmark = pytest.mark.timeout(5400)

PROFILES = {"nightly": (2000, 50), "ci": (200, 50), "dev": (40, 50)}
_examples, _steps = PROFILES[os.environ.get("GAMMA_PROFILE", "ci")]

TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=_examples, stateful_step_count=_steps, deadline=None)
