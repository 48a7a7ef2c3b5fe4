"""The kind Model: built once from a pinned source, measured beside it, and pointed at by digest."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Impact
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.leaves import is_leaf
from gamma_orch.core.observation import Observation
from gamma_orch.core.provider import Asked, GatesFailed, Page, Permanent, Task
from gamma_orch.kinds.models import agreement, model_spec
from gamma_orch.kinds.models.model_spec import ModelSpec
from gamma_orch.kinds.models.pointing import Pointer, Pointing, pinned_source
from gamma_orch.kinds.models.recipe import Recipe, recipe
from gamma_orch.kinds.models.versions import installed
from gamma_orch.spec.kind import Kind
from gamma_orch.targets import BUILDS, Targets

if TYPE_CHECKING:
    from gamma_orch.kinds.models.building import Builder
    from gamma_orch.store.artifacts import Artifact


class ModelProvider:
    def __init__(self, targets: Targets) -> None:
        from gamma_orch.kinds.models.building import store_of

        self._targets = targets
        self._refused: dict[Address, Mapping[str, Json]] = {}
        self._pointing = Pointing(store_of(targets), targets.environment, targets.state.parent)

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        return await asyncio.to_thread(self._pointing.observe, "Model", asked)

    async def apply(self, task: Task) -> None:
        """Build what is not built, measure, choose, and point. Raises Temporary or Permanent; whatever was
        pointed at before stays so until the new model has passed its gates."""
        from gamma_orch.kinds.models.building import build
        from gamma_orch.kinds.models.forecast import forecast
        from gamma_orch.kinds.models.selection import select

        pin = await asyncio.to_thread(self._pointing.pins, task.fields)
        wanted = self._recipe(task.fields, pin)

        def work(builder: "Builder") -> None:
            foreseen = forecast(builder.store, wanted)
            settled = select(wanted, builder, task.address)
            told = {"report": settled.report.key, "foreseen": foreseen.encoded()}
            pointer = Pointer(
                settled.chosen.key, settled.chosen.digest, dict(task.fields), settled.outputs, pin, told
            )
            self._pointing.point(task.address, pointer)

        log = f"{self._targets.environment}-model-{task.address.name}"
        local: dict[str, Json] = {"source": task.fields["source"]} if pin else {}
        online = "hub" in task.fields["source"]
        self._refused.pop(task.address, None)
        try:
            await build(self._targets, self._pointing.store, log, task.tell, work, self._given, local, online)
        except GatesFailed as error:
            self._refused[task.address] = error.gates
            raise

    async def delete(self, task: Task) -> None:
        """The environment points at it no more. The artifact stays until it is collected."""
        await asyncio.to_thread(self._pointing.unpoint, task.address)

    def estimate(self, planned: Mapping[Address, Fields]) -> Mapping[Address, Impact]:
        from gamma_orch.kinds.models.forecast import forecast

        found: dict[Address, Impact] = {}
        for address, fields in planned.items():
            if any(is_leaf(digest) for _, digest in model_spec.datasets(fields)):
                found[address] = Impact(note="build, once its data is there")
                continue
            wanted = self._recipe(fields, self._pointing.pins(fields))
            pointed = self._pointing.pointer(address) is not None
            found[address] = forecast(self._pointing.store, wanted).impact(pointed)
        return found

    def refused(self, address: Address) -> Mapping[str, Json]:
        return self._refused.get(address, {})

    def pages(self, address: Address) -> Mapping[str, Page]:
        """The card, and the pictures of the build."""
        pointer = self._pointing.pointer(address)
        report = self._pointing.store.find(pointer.told["report"]) if pointer and pointer.told else None
        if report is None:
            return {}
        folder = self._pointing.store.folder(report)
        pages = {"card": Page(markdown=(folder / "card.md").read_text(encoding="utf-8"))}
        for picture in sorted(folder.glob("*.png")):
            pages[picture.stem.replace("-", " ")] = Page(png=picture.read_bytes())
        return pages

    def _recipe(self, fields: Fields, pin: str) -> Recipe:
        from gamma_orch.kinds.models.host import probe

        return recipe(pinned_source(fields, pin), installed, probe().fingerprint())

    def _given(self, digest: str) -> "Artifact":
        """The rows that a Dataset of this environment has made."""
        store = self._pointing.store
        for (environment, address), body in store.pointers().items():
            if environment == self._targets.environment and body["digest"] == digest:
                artifact = store.find(body["key"])
                if artifact is not None and address.startswith("Dataset/"):
                    return artifact
        raise Permanent(
            f"The data with digest {digest[:12]} is not in the store. Apply again: it is made again first."
        )


def gates(spec: Json) -> Mapping[str, str]:
    """The gates that a spec declares, by name, with what each asks for."""
    from gamma_orch.kinds.models.gates import asked, name

    return {name(gate): asked(gate) for gate in spec["gates"]}


KIND = Kind(
    name="Model",
    family="models",
    summary="A model: where it comes from, what it learns, how small and fast it gets, how good it stays.",
    spec=ModelSpec,
    provider=ModelProvider,
    traits=Traits(
        normalise=model_spec.normalise,
        refers=True,
        convergent=True,
        target=lambda _fields: BUILDS,
    ),
    outputs={
        "digest": "the digest of the artifact",
        "key": "the key of the artifact in the store",
        "keys": "the keys of what else belongs to it: the report, the reference",
        "level": "the level that kept its promise",
        "candidate": "the candidate that was chosen",
        "runtime": "what runs it",
        "size": "its bytes",
        "memory": "the resident bytes of a process that has it loaded",
        "metric": "what its quality is measured by",
        "quality": "its quality on the test split",
        "relative": "the share of the source's quality that it keeps, with the 95 % interval",
        "p95": "the 95th percentile of the latency of one text of the greatest measured length, in seconds",
        "speedup": "how much faster it is than the source in PyTorch, by geometric mean over the shapes",
        "gates": "each gate with what was measured",
    },
    gates=gates,
    check=agreement.models,
)
