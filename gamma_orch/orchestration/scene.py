"""What the definitions of one environment are made from: its files and its ledger, read once.

A project whose specs are broken still has a scene, made from the ledger: its sensors must be there
to notice when the specs are mended. The world is not looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import digest
from gamma_orch.core.fingerprint import Fingerprint, fingerprint, in_order
from gamma_orch.core.ledger import Entry
from gamma_orch.core.planner import wanted_fields
from gamma_orch.core.render import diagnostics_text
from gamma_orch.core.resource import Resource
from gamma_orch.engine import project as projects
from gamma_orch.engine.doors import ledger_url
from gamma_orch.spec.environment import EnvironmentSpec
from gamma_orch.spec.reconcile import ReconcileSpec
from gamma_orch.spec.references import plain
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import present


@dataclass(frozen=True)
class Scene:
    root: Path
    environment: str
    wanted: Mapping[Address, Resource]
    unwanted: Mapping[Address, Entry]  # recorded, and declared by no document any more
    # Unwanted -> what is wanted, and rested on it when it was recorded.
    lets_go: Mapping[Address, tuple[Address, ...]]
    gone: frozenset[Address]  # recorded once, and not any more: a run's selection may hold what it deleted
    prints: Mapping[Address, Fingerprint]
    settings: EnvironmentSpec
    families: Mapping[str, str]  # kind -> the group it is shown under
    project: projects.Project

    @cached_property
    def target(self) -> Mapping[Address, str]:
        """What each wanted resource is put on, as `postgres/main`; empty where its kind has no target."""
        kinds = {address.kind for address in self.wanted}
        found = {name: kind.traits for name in kinds if (kind := self.project.kinds.get(name))}
        fields = wanted_fields(self.wanted, found, in_order(self.wanted))
        return {address: found[address.kind].target(fields[address]) for address in self.wanted}

    @property
    def broken(self) -> bool:
        return self.project.desired is None

    @property
    def problems(self) -> str:
        return diagnostics_text(self.project.diagnostics)

    @cached_property
    def digest(self) -> str:
        """Equal for equal definitions."""
        wanted = sorted((str(address), prints.encoded()) for address, prints in self.prints.items())
        return digest([wanted, sorted(map(str, self.unwanted)), plain(self.settings), self.broken])

    def needs(self, address: Address) -> tuple[Address, ...]:
        """What comes before it in a run. What goes goes after what rested on it."""
        if address in self.wanted:
            return self.wanted[address].needs
        above = (
            other
            for other, entry in self.unwanted.items()
            if entry.record and address in entry.record.needs and other != address
        )
        return (*above, *self.lets_go.get(address, ()))


def scene(root: Path, environment: str) -> Scene:
    """Read the environment. Raises StoreError where the ledger cannot be read."""
    project = projects.read(root, environment)
    wanted = project.desired.resources if project.desired else {}
    # Of broken specs nothing is known, and somebody has to look for their being mended.
    settings = project.desired.environment if project.desired else EnvironmentSpec(reconcile=ReconcileSpec())
    database = Database(ledger_url(root))
    try:
        ledger, _ = present(database, environment)
    finally:
        database.close()
    moved = {resource.moved_from for resource in wanted.values() if resource.moved_from}
    unwanted = {
        address: entry
        for address, entry in sorted(ledger.entries.items())
        if entry.record and address not in wanted and address not in moved
    }
    lets_go: dict[Address, tuple[Address, ...]] = {}
    for address, resource in wanted.items():
        record = ledger.record(address) or (
            ledger.record(resource.moved_from) if resource.moved_from else None
        )
        for need in record.needs if record else ():
            if need in unwanted:
                lets_go[need] = (*lets_go.get(need, ()), address)
    kinds = {address.kind for address in (*wanted, *unwanted)}
    found = {name: project.kinds.get(name) for name in sorted(kinds)}
    return Scene(
        root=root,
        environment=environment,
        wanted=wanted,
        unwanted=unwanted,
        lets_go=lets_go,
        gone=frozenset(ledger.entries) - set(wanted) - set(unwanted),
        prints=fingerprint(wanted, in_order(wanted)),
        settings=settings,
        families={name: kind.family if kind else "unknown" for name, kind in found.items()},
        project=project,
    )
