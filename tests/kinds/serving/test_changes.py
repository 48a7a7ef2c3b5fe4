"""What a change of one document is a change of: whole trees through the language and the planner, with a
world of dictionaries instead of processes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Action, Reason
from gamma_orch.core.diagnostic import written
from gamma_orch.core.leaves import encode
from gamma_orch.core.observation import ABSENT, Observation, Seen
from gamma_orch.core.provider import Asked, Task
from gamma_orch.spec.load import load
from gamma_orch.spec.registry import registry
from gamma_orch.spec.resolve import resolve
from gamma_orch.store.ledger import present
from tests.engine.bench import Bench
from tests.spec.shown import DEV, DEV_FILE, diagnostics_shown, secret_digest

TREE = """
apiVersion: gamma/v1
kind: Model
metadata: {name: sentiment}
spec:
  task: text-classification
  source: {package: mini==0.1.0}
  optimize: {level: basic}
---
apiVersion: gamma/v1
kind: CachePolicy
metadata: {name: answers}
spec: {ttl: 5m}
---
apiVersion: gamma/v1
kind: CachePolicy
metadata: {name: others}
spec: {ttl: 1m}
---
apiVersion: gamma/v1
kind: CachePolicy
metadata: {name: twin}
spec: {ttl: 5m}
---
apiVersion: gamma/v1
kind: Service
metadata: {name: api}
spec:
  models: [{model: sentiment}]
  workers: 2
  cache: answers
  auth:
    roles: {caller: [models, predict]}
    keys: {frontend: {secret: "${secret.frontend-key}", roles: [caller]}}
---
apiVersion: gamma/v1
kind: Service
metadata: {name: other}
spec:
  listen: {port: 8001}
  models: [{model: sentiment}]
  cache: others
---
apiVersion: gamma/v1
kind: Model
metadata: {name: novelist}
spec: {task: text-generation, source: {package: tales==0.1.0}, optimize: {level: none}}
---
apiVersion: gamma/v1
kind: Dataset
metadata: {name: talk}
spec: {source: {path: talk.csv}, columns: {text: text}}
---
apiVersion: gamma/v1
kind: Model
metadata: {name: pirate}
spec:
  task: text-generation
  source: {package: tales==0.1.0}
  finetune: {dataset: talk, keep: adapter, seed: 1}
  optimize: {level: none}
---
apiVersion: gamma/v1
kind: Service
metadata: {name: tales}
spec:
  listen: {port: 8002}
  models: [{model: novelist, adapters: {pirate: pirate}}]
---
apiVersion: gamma/v1
kind: ScalingPolicy
metadata: {name: api}
spec: {service: api, max: 4, target: {cpu: 70%}}
"""
KINDS = ("Dataset", "Model", "CachePolicy", "Service", "ScalingPolicy")
Changes = dict[str, tuple[Action, Reason]]


class Kept:
    """A provider that keeps fields, and of a model an artifact whose digest comes of its spec."""

    def __init__(self, objects: dict[Address, Json]) -> None:
        self._objects = objects

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        return {one.address: self._look(one.address) for one in asked}

    async def apply(self, task: Task) -> None:
        self._objects[task.address] = encode(dict(task.fields))

    async def delete(self, task: Task) -> None:
        self._objects.pop(task.address, None)

    def _look(self, address: Address) -> Observation:
        if address not in self._objects:
            return ABSENT
        fields = self._objects[address]
        outputs = {}
        if address.kind == "Dataset":
            outputs = {"digest": "of the talk", "key": "of the talk"}
        if address.kind == "Model":
            made = f"{fields['optimize']['level']}-{fields.get('finetune', {}).get('seed')}"
            outputs = {"digest": f"digest-{made}", "key": f"key-{made}"}
        return Seen(fields, outputs)


@pytest.fixture
def tree(bench: Bench) -> Bench:
    objects: dict[Address, Json] = {}
    for name in KINDS:
        kind = registry("").get(name)
        assert kind is not None
        bench.kinds[name] = replace(kind, provider=lambda targets: Kept(objects))
    bench.limits.limits["builds"] = 1
    write(bench, TREE)
    return bench


def write(bench: Bench, text: str) -> None:
    """The specs are these from now on."""
    loaded = load({DEV_FILE: DEV, "specs/a.yaml": text.encode()})
    resolution = resolve(loaded.documents, "dev", registry(""), secret_digest, ("dev",))
    assert resolution.desired is not None, diagnostics_shown(resolution.diagnostics)
    bench.desired = dict(resolution.desired.resources)


async def changes(bench: Bench, old: str, new: str) -> Changes:
    """What a converged tree plans, once one text in it is another one."""
    assert old in TREE
    await bench.made()
    assert (await bench.look()).steps == ()
    write(bench, TREE.replace(old, new, 1))
    plan = await bench.look()
    found: Changes = {
        str(c.address): (c.action, c.reason) for c in plan.changes if c.action is not Action.KEEP
    }
    await bench.made()
    assert (await bench.look()).steps == (), "what was planned was all there was"
    return found


EDITED: Any = (Action.UPDATE, Reason.SPEC_CHANGED)


async def test_a_cache_policy_is_a_part_of_the_service_that_names_it(tree: Bench):
    found = await changes(tree, "spec: {ttl: 5m}", "spec: {ttl: 6m}")
    assert found.keys() == {"CachePolicy/answers", "Service/api"}
    assert {action for action, _ in found.values()} == {Action.UPDATE}
    assert found["CachePolicy/answers"] == EDITED


async def test_the_service_has_the_new_policy_in_it(tree: Bench):
    await changes(tree, "spec: {ttl: 5m}", "spec: {ttl: 6m}")
    ledger, _ = present(tree.database, "dev")
    records = [ledger.record(Address("Service", name)) for name in ("api", "other")]
    assert [record and record.fields["cache"]["ttl"] for record in records] == ["6m", "1m"]


async def test_another_policy_is_a_change_of_the_service_alone(tree: Bench):
    assert await changes(tree, "cache: answers", "cache: others") == {"Service/api": EDITED}


async def test_another_policy_that_says_the_same_is_no_rollout(tree: Bench):
    found = await changes(tree, "cache: answers", "cache: twin")
    assert found == {"Service/api": (Action.ADOPT, Reason.METADATA)}


async def test_how_a_policy_is_described_is_no_change_of_the_service(tree: Bench):
    found = await changes(tree, "{name: answers}", "{name: answers, description: Words.}")
    assert found.keys() == {"CachePolicy/answers"}


async def test_a_model_that_was_built_anew_is_rolled_out_by_all_that_serve_it(tree: Bench):
    found = await changes(tree, "level: basic", "level: none")
    assert found == {
        "Model/sentiment": EDITED,
        "Service/api": (Action.UPDATE, Reason.KNOWN_LATER),
        "Service/other": (Action.UPDATE, Reason.KNOWN_LATER),
    }


async def test_an_adapter_that_was_built_anew_is_a_change_of_the_service_by_its_name(tree: Bench):
    await tree.made()
    write(tree, TREE.replace("seed: 1", "seed: 2"))
    plan = await tree.look()
    [change] = [one for one in plan.changes if str(one.address) == "Service/tales"]
    assert (change.action, change.reason) == (Action.UPDATE, Reason.KNOWN_LATER)
    assert [written(one.path) for one in change.fields] == [
        f"models.novelist.adapters.pirate.{one}" for one in ("digest", "key")
    ]
    assert "Model/pirate" in str(change.fields[0].wanted)
    await tree.made()
    assert (await tree.look()).steps == ()


async def test_a_scaling_policy_changes_nobody_else(tree: Bench):
    assert await changes(tree, "cpu: 70%", "cpu: 80%") == {"ScalingPolicy/api": EDITED}


async def test_more_workers_are_no_change_of_the_scaling_policy(tree: Bench):
    assert await changes(tree, "workers: 2", "workers: 3") == {"Service/api": EDITED}


async def test_a_service_comes_after_what_it_serves(tree: Bench):
    steps = [str(step.address) for step in (await tree.look()).steps]
    for first in ("Model/sentiment", "CachePolicy/answers"):
        assert steps.index(first) < steps.index("Service/api")
    assert steps.index("Service/api") < steps.index("ScalingPolicy/api")
