"""How the cases on disk become values of the core, and plans become text again.

In a case an address without a kind is a Thing. A text `${a.id}` is a reference, `${secret.pw 1}` the
secret `pw` with the digest "1", `${?why}` an unknown; with more text around them, a template.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.event import Event, Type
from gamma_orch.core.fingerprint import fingerprint, in_order
from gamma_orch.core.kind import Fields, Of, Traits, as_written, none_foreseen
from gamma_orch.core.leaves import (
    Leaf,
    Ref,
    Secret,
    Template,
    Unknown,
    encode,
    is_secret,
    leaves,
    replace_leaves,
)
from gamma_orch.core.ledger import Ledger, fold
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.plan import Plan
from gamma_orch.core.record import Record
from gamma_orch.core.render import headline, value_text
from gamma_orch.core.resource import NO_LIFECYCLE, Lifecycle, Replace, Resource

CASES = Path(__file__).parents[1] / "cases"
ENVIRONMENT = "dev"


def cases(folder: str) -> list[Path]:
    return sorted((CASES / folder).glob("*.yaml"))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def place(text: str) -> Address:
    return Address.parse(text if "/" in text else f"Thing/{text}")


_PART = re.compile(r"\$\{([^}]*)\}")


def tree(value: Json) -> Json:
    """A case's value with its expressions as leaves."""
    if isinstance(value, dict):
        return {key: tree(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [tree(inner) for inner in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    parts = [_leaf(text) if odd else text for odd, text in _split(value) if text]
    return parts[0] if len(parts) == 1 else Template(tuple(parts))


def _split(text: str) -> Iterator[tuple[bool, str]]:
    for number, part in enumerate(_PART.split(text)):
        yield bool(number % 2), part


def _leaf(text: str) -> Leaf:
    if text.startswith("?"):
        return Unknown(text[1:])
    if text.startswith("secret."):
        name, _, digest = text.removeprefix("secret.").partition(" ")
        return Secret(name, digest)
    name, _, output = text.rpartition(".")
    return Ref(place(name), output)


def observation(value: Json) -> Observation:
    """`absent`, `unreadable`, a mapping of fields, or {fields, outputs, healthy, why}."""
    if value == "absent":
        return ABSENT
    if value == "unreadable":
        return Unreadable("no route to it")
    if "fields" in value:
        return Seen(**{**value, "fields": encode(tree(value["fields"]))})
    return Seen(encode(tree(value)))


def traits(body: Mapping[str, Any]) -> Traits:
    """`copies` has names of fields that are taken over from the first need; `foresee` those of
    fields that are outputs too."""

    def copying(address: Address, spec: Json, of: Of) -> Fields:
        own = dict(spec)
        parent = own.pop("parent", None)
        taken = of(place(parent)) if parent else {}
        return {**own, **{name: taken[name] for name in copies if name in taken}}

    def foreseeing(fields: Fields) -> Mapping[str, Json]:
        return {name: fields[name] for name in foresee if name in fields}

    given = dict(body)
    copies, foresee = given.pop("copies", ()), given.pop("foresee", ())
    for name in ("immutable", "stable"):
        given[name] = frozenset(given.get(name, ()))
    if "replace" in given:
        given["replace"] = Replace(given["replace"])
    return Traits(
        normalise=copying if copies else as_written,
        foresee=foreseeing if foresee else none_foreseen,
        **given,
    )


THING = {"immutable": ["fixed"], "stable": ["id"]}


def resources(body: Mapping[str, Any] | None) -> dict[Address, Resource]:
    found = {}
    for name, given in (body or {}).items():
        said = dict(given or {})
        spec = tree(said.pop("spec", {}))
        holes = list(leaves(spec))
        needs = {place(need) for need in said.pop("needs", ())}
        needs |= {hole.address for hole in holes if isinstance(hole, Ref)}
        life: dict[str, Any] = {
            key: said.pop(key) for key in ("protect", "retain", "ignore", "replace") if key in said
        }
        if "ignore" in life:
            life["ignore"] = tuple(life["ignore"])
        if "replace" in life:
            life["replace"] = Replace(life["replace"])
        if "moved" in said:
            said["moved_from"] = place(said.pop("moved"))
        address = place(name)
        found[address] = Resource(
            address,
            spec,
            tuple(sorted(needs)),
            Lifecycle(**life) if life else NO_LIFECYCLE,
            has_leaves=bool(holes),
            **said,
        )
    return found


def record(
    resource: Resource, all_resources: Mapping[Address, Resource], kinds: Mapping[str, Traits]
) -> Record:
    """What the ledger holds once this resource is applied as it is wanted."""
    order = in_order(all_resources)
    derive = {name for name, kind in kinds.items() if kind.derives}
    found: dict[Address, Fields] = {}
    for address in order:
        spec = _settled(all_resources[address].spec)
        found[address] = encode(kinds[address.kind].normalise(address, spec, found.__getitem__))
    life = resource.lifecycle
    return Record(
        fields=found[resource.address],
        outputs=_outputs(resource.address, found[resource.address]),
        fingerprint=fingerprint(all_resources, order, derive)[resource.address],
        needs=resource.needs,
        protect=life.protect,
        retain=life.retain,
        replace=life.replace,
    )


def _settled(spec: Json) -> Json:
    return replace_leaves(spec, lambda leaf: f"{leaf.address.name}-1" if isinstance(leaf, Ref) else leaf)


def _outputs(address: Address, fields: Fields) -> dict[str, Json]:
    return {"id": f"{address.name}-1", **{name: fields[name] for name in ("size",) if name in fields}}


def ledger(case: Mapping[str, Any], kinds: Mapping[str, Traits]) -> Ledger:
    """A history: all of `applied` was done; then `failed`, `consents` and `begun` came on top."""
    applied = resources(case.get("applied"))
    events = [
        Event(Type.DONE, a, data={"record": record(r, applied, kinds).encoded()}) for a, r in applied.items()
    ]
    events += [
        Event(Type.FAILED, place(name), data={"error": why}) for name, why in case.get("failed", {}).items()
    ]
    events += [Event(Type.DONE, place(name), data={"record": None}) for name in case.get("deleted", ())]
    events += [
        Event(Type.APPROVED, place(name), data={"consent": "ada"}) for name in case.get("consents", ())
    ]
    for name, given in case.get("begun", {}).items():
        body = {"opcode": "update", "planned": None, "before": None, "record": None, **given}
        events.append(Event(Type.BEGUN, place(name), "p", f"key of {name}", body))
    numbered = [replace(event, seq=seq) for seq, event in enumerate(events, start=1)]
    return fold(Ledger(ENVIRONMENT), numbered)


def kinds_of(case: Mapping[str, Any]) -> dict[str, Traits]:
    return {name: traits({**THING, **body}) for name, body in {"Thing": {}, **case.get("kinds", {})}.items()}


def world(case: Mapping[str, Any], known: Ledger) -> dict[Address, Observation]:
    """As recorded, secrets hidden, but for what `world` says; what was moved is seen where it is now."""
    wanted = resources(case.get("wanted"))
    moved = {r.moved_from: a for a, r in wanted.items() if r.moved_from and not known.record(a)}
    found: dict[Address, Observation] = dict.fromkeys(wanted, ABSENT)
    for address, entry in known.entries.items():
        if entry.record is None:
            continue
        shown = {key: value for key, value in entry.record.fields.items() if not is_secret(value)}
        found[moved.get(address, address)] = Seen(shown, entry.record.outputs)
    for name, value in (case.get("world") or {}).items():
        address = place(name)
        seen = observation(value)
        if isinstance(seen, Seen) and "fields" not in value and (was := known.record(address)):
            seen = Seen(seen.fields, was.outputs)
        found[address] = seen
    for name in case.get("unobserved", ()):
        del found[place(name)]
    return found


def plan_shown(plan: Plan) -> str:
    """Changes with their fields, then steps with what each waits for."""
    lines = []
    for change in plan.changes:
        lines.append(f"{change.address} {headline(change)}")
        for field in change.fields:
            was, wanted, live = map(value_text, (field.was, field.wanted, field.live))
            path = ".".join(map(str, field.path))
            lines.append(f"    {path} {field.verdict}: was {was}, wanted {wanted}, live {live}")
    for step in plan.steps:
        after = f" after {', '.join(map(str, step.needs))}" if step.needs else ""
        moved = f" moved from {step.moved_from}" if step.moved_from else ""
        lines.append(f"{step.index}. {step.opcode} {step.address}{moved}{after}")
    lines += [f"extra {extra}" for extra in plan.extras]
    return "".join(line + "\n" for line in lines)


def agree(path: Path, got: str, wanted: str, whole: str) -> None:
    """Equal, or with UPDATE_GOLDEN=1 made equal: `whole` is then the file's new content."""
    if os.environ.get("UPDATE_GOLDEN") and got != wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(whole, encoding="utf-8")
        return
    assert got == wanted, f"{path.name}: see the difference; UPDATE_GOLDEN=1 accepts it"
