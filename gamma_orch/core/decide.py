"""One address at a time: what is to be done with it, given what was decided above it."""

from dataclasses import replace

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Action, Change, Reason
from gamma_orch.core.compare import compare, left_alone
from gamma_orch.core.draft import Draft, consent_first, held, record_now, records_only
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.leaves import Ref, Secret, Unknown, encode, replace_leaves
from gamma_orch.core.ledger import Entry
from gamma_orch.core.observation import Absent, Observation, Seen, Unreadable
from gamma_orch.core.resource import Replace, Resource


def decide(draft: Draft, address: Address) -> None:
    resource = draft.desired[address]
    moved_from = draft.moves.get(address)
    record = record_now(draft, address)
    traits = draft.traits[address.kind]
    observation = draft.observations.get(address, Unreadable("it was not observed"))
    wanted = resolved(draft, resource)
    if record and resource.lifecycle.ignore and isinstance(observation, Seen):
        wanted = left_alone(wanted, observation.fields, resource.lifecycle)
    draft.wanted[address] = wanted
    doubtful = next((a for a in (address, moved_from) if a and _is_begun(draft, a)), None)
    if doubtful:
        change = _in_doubt(address, doubtful, draft.ledger.entries[doubtful], observation)
    else:
        change = compare(
            address, wanted, draft.prints[address], resource.lifecycle, record, observation, traits
        )
        if moved_from and change.action is Action.KEEP:
            change = Change(address, Action.ADOPT, Reason.MOVED, f"from {moved_from}")
        if moved_from:
            change = replace(change, moved_from=moved_from)
        if change.action is Action.REPLACE:
            change = _replacement(draft, change, resource, traits)
    draft.changes[address] = change


def decide_unwanted(draft: Draft, address: Address) -> None:
    entry = draft.ledger.entries[address]
    record = entry.record
    observation = draft.observations.get(address, Unreadable("it was not observed"))
    if entry.begun is not None:
        change = _in_doubt(address, address, entry, observation)
    elif record is None:
        return  # only a failed attempt is known of it, and nobody wants it any more
    elif record.retain:
        change = Change(address, Action.FORGET, Reason.RETAINED)
    elif isinstance(observation, Unreadable):
        change = Change(address, Action.REFUSE, Reason.UNREADABLE, observation.error)
    elif isinstance(observation, Absent):
        change = Change(address, Action.FORGET, Reason.GONE)
    elif held(draft, address):
        change = Change(address, Action.REFUSE, Reason.PROTECTED, consent_first(address, "deleted"))
    else:
        change = Change(address, Action.DELETE, Reason.REMOVED)
    draft.changes[address] = change


def resolved(draft: Draft, resource: Resource) -> Fields:
    """The wanted fields, with what is known at this point of the values that others give."""
    address = resource.address
    traits = draft.traits[address.kind]
    opened = resource.has_leaves or traits.refers
    if not opened and not any(need in draft.resolved for need in resource.needs):
        return draft.first[address]
    draft.resolved.add(address)

    def settled(leaf: Ref | Secret | Unknown) -> Json:
        return _settle_leaf(draft, leaf)

    fields: Json = traits.normalise(address, replace_leaves(resource.spec, settled), draft.wanted.__getitem__)
    return encode(replace_leaves(fields, settled) if traits.refers else fields)  # type: ignore[no-any-return]


def _settle_leaf(draft: Draft, leaf: Ref | Secret | Unknown) -> Json:
    """A reference becomes the value, where this plan leaves it as it is, else Unknown."""
    if not isinstance(leaf, Ref):
        return leaf
    parent = draft.changes[leaf.address]
    traits = draft.traits[leaf.address.kind]
    foreseen = traits.foresee(draft.wanted[leaf.address])
    if leaf.output in foreseen:
        return foreseen[leaf.output]
    in_place = parent.action in (Action.UPDATE, Action.ADOPT) and leaf.output in traits.stable
    observation = draft.observations.get(leaf.address)
    stands = parent.action is Action.KEEP or records_only(parent) or in_place
    if stands and isinstance(observation, Seen) and leaf.output in observation.outputs:
        return observation.outputs[leaf.output]
    return Unknown(f"known after {leaf.address} is applied")


def _is_begun(draft: Draft, address: Address) -> bool:
    entry = draft.ledger.entries.get(address)
    return entry is not None and entry.begun is not None


def _in_doubt(address: Address, doubtful: Address, entry: Entry, observation: Observation) -> Change:
    if isinstance(observation, Unreadable):
        return Change(address, Action.REFUSE, Reason.UNREADABLE, observation.error)
    opcode = entry.begun.opcode if entry.begun else ""
    return Change(
        address,
        Action.REFUSE,
        Reason.IN_DOUBT,
        f"an earlier {opcode} was cut off, and what is there now is neither what it found "
        "nor what it was to make; look at it, then let Gamma go on from what is there: "
        f"gamma apply --consent {doubtful}",
    )


def _replacement(draft: Draft, change: Change, resource: Resource, traits: Traits) -> Change:
    order = resource.lifecycle.replace or traits.replace
    if order is Replace.CREATE_FIRST:
        return change
    if held(draft, change.address):
        detail = consent_first(change.address, "replaced")
        return replace(change, action=Action.REFUSE, reason=Reason.PROTECTED, detail=detail)
    draft.rebuilt.add(change.address)
    return change
