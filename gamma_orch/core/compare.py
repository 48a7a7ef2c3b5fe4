"""Three-way comparison of one resource: wanted, last applied, live.

One owned field (W wanted, L last applied, O observed; all normalised):

| W       | L         | O          | verdict                                                 |
|---------|-----------|------------|---------------------------------------------------------|
| = O     | any       | = W        | keep                                                    |
| x       | x         | y or none  | drift: somebody changed it; it is changed back          |
| x       | y or none | = L, none  | change: the spec moved on                               |
| x       | y         | z          | conflict: both moved; it is changed, all three are shown|
| none    | x         | x          | release: it was ours, unset it                          |
| none    | x         | y or none  | forget: somebody took it over, leave it                 |
| none    | none      | y          | foreign: never ours                                     |
| unknown | any       | any        | later: an earlier step decides it                       |
| secret d1 | secret d2 | cannot be read | change exactly when d1 and d2 differ              |

The whole object comes first: see `compare`.
"""

from collections.abc import Iterator, Mapping

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import MISSING, Action, Change, FieldChange, Reason, Verdict
from gamma_orch.core.diagnostic import Path
from gamma_orch.core.fingerprint import Fingerprint
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.leaves import is_leaf, is_secret, is_unknown
from gamma_orch.core.observation import Absent, Observation, Seen, Unreadable
from gamma_orch.core.record import Record
from gamma_orch.core.resource import Lifecycle

WORK = frozenset({Verdict.CHANGE, Verdict.DRIFT, Verdict.CONFLICT, Verdict.RELEASE, Verdict.LATER})


def compare(
    address: Address,
    wanted: Fields,
    fingerprint: Fingerprint,
    lifecycle: Lifecycle,
    record: Record | None,
    observation: Observation,
    traits: Traits,
) -> Change:
    """The change that one wanted resource needs. `wanted` is normalised and encoded."""
    match observation:
        case Unreadable(error):
            return Change(address, Action.REFUSE, Reason.UNREADABLE, error)
        case Absent():
            return _absent(address, wanted, record)
        case Seen():
            return _seen(address, wanted, fingerprint, lifecycle, record, observation, traits)


def _absent(address: Address, wanted: Fields, record: Record | None) -> Change:
    was = record.fields if record else {}
    reason = Reason.DELETED_OUTSIDE if record else Reason.NEW
    return Change(address, Action.CREATE, reason, fields=tuple(field_changes(wanted, was, {})))


def _seen(
    address: Address,
    wanted: Fields,
    fingerprint: Fingerprint,
    lifecycle: Lifecycle,
    record: Record | None,
    seen: Seen,
    traits: Traits,
) -> Change:
    if record and wanted == record.fields and wanted == seen.fields and seen.healthy:
        fields: tuple[FieldChange, ...] = ()  # the common case, worth no walk
    else:
        was = record.fields if record else {}
        ignored = [parse_path(path) for path in lifecycle.ignore] if record else []
        fields = tuple(field_changes(wanted, was, seen.fields, ignored))
    work = [field for field in fields if field.verdict in WORK]
    if not work and not seen.healthy:
        return Change(address, Action.UPDATE if record else Action.ADOPT, Reason.UNHEALTHY, seen.why)
    if not work and record and traits.derives and record.fingerprint.parents != fingerprint.parents:
        return Change(address, Action.UPDATE, Reason.PARENT_CHANGED)
    if not work:
        return _settled(address, wanted, fingerprint, record, fields)
    fixed = sorted({str(f.path[0]) for f in work if f.path[0] in traits.immutable})
    if fixed and record is None:
        # Replacing is deleting, and what was never ours is never deleted.
        return Change(
            address,
            Action.REFUSE,
            Reason.IMMUTABLE,
            f"it exists, is not managed yet, and differs in {', '.join(fixed)}, "
            "which cannot change in place; make the spec equal to it, or rename one of them",
            fields,
        )
    if fixed:
        return Change(address, Action.REPLACE, Reason.IMMUTABLE, ", ".join(fixed), fields)
    if record is None:
        return Change(address, Action.ADOPT, Reason.EXISTS, fields=fields)
    return Change(address, Action.UPDATE, _reason(work), fields=fields)


def _settled(
    address: Address,
    wanted: Fields,
    fingerprint: Fingerprint,
    record: Record | None,
    fields: tuple[FieldChange, ...],
) -> Change:
    """Live is as wanted. What is left is whether the ledger knows."""
    if record is None:
        return Change(address, Action.ADOPT, Reason.EXISTS)
    if fields:
        return Change(address, Action.ADOPT, Reason.CONVERGED_OUTSIDE, fields=fields)
    if record.fingerprint.metadata != fingerprint.metadata:
        return Change(address, Action.ADOPT, Reason.METADATA)
    return Change(address, Action.KEEP, Reason.IN_SYNC)


def _reason(work: list[FieldChange]) -> Reason:
    verdicts = {field.verdict for field in work}
    if Verdict.CONFLICT in verdicts or {Verdict.DRIFT, Verdict.CHANGE} <= verdicts:
        return Reason.CONFLICT
    if Verdict.DRIFT in verdicts:
        return Reason.DRIFTED
    return Reason.KNOWN_LATER if verdicts == {Verdict.LATER} else Reason.SPEC_CHANGED


def field_changes(
    wanted: Fields, was: Fields, live: Fields, ignored: list[Path] | None = None
) -> Iterator[FieldChange]:
    """Every owned field that is not plainly kept, in path order. Foreign fields are left out."""
    wants, applied, found = dict(paths(wanted)), dict(paths(was)), dict(paths(live))
    for path in sorted({**wants, **applied}, key=_path_order):
        if _under(path, ignored or []):
            continue
        w, a, o = wants.get(path, MISSING), applied.get(path, MISSING), found.get(path, MISSING)
        kept = verdict(w, a, o) is Verdict.KEEP
        # A kept field that the ledger has otherwise is shown too: the record must learn it.
        if not kept or (was and not same(w, a)):
            yield FieldChange(path, verdict(w, a, o), a, w, o)


def verdict(wanted: Json, was: Json, live: Json) -> Verdict:
    """One row of the table in this module's docstring."""
    if wanted is not MISSING and is_unknown(wanted):
        return Verdict.LATER
    if wanted is not MISSING and is_secret(wanted) and live is MISSING:
        return Verdict.KEEP if wanted == was else Verdict.CHANGE
    if wanted is MISSING:
        if was is MISSING:
            return Verdict.FOREIGN
        if is_secret(was):
            return Verdict.RELEASE
        return Verdict.RELEASE if same(was, live) else Verdict.FORGET
    if same(wanted, live):
        return Verdict.KEEP
    if same(wanted, was):
        return Verdict.DRIFT
    if was is MISSING or same(was, live) or (is_secret(was) and live is MISSING):
        return Verdict.CHANGE
    return Verdict.CONFLICT


def same(a: Json, b: Json) -> bool:
    """Equal as JSON: unlike in Python, true is not 1."""
    if a is MISSING or b is MISSING:
        return a is b
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def paths(tree: Mapping[str, Json], prefix: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Every leaf with its path. Maps are opened, and an empty one owns nothing; lists and encoded
    leaves are whole."""
    for key, value in tree.items():
        if _is_map(value):
            yield from paths(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def left_alone(wanted: Fields, live: Fields, lifecycle: Lifecycle) -> Fields:
    """The wanted fields, with what `lifecycle.ignore` names as it is in the world."""
    for path in lifecycle.ignore:
        wanted = _with_live(wanted, live, parse_path(path))
    return wanted


def _with_live(wanted: Fields, live: Fields, path: Path) -> Fields:
    """A copy in which the path holds what it holds in `live`, and is gone where it is gone there."""
    if not path:
        return live
    key, rest = str(path[0]), path[1:]
    if not rest:
        kept = {name: value for name, value in wanted.items() if name != key}
        return {**kept, key: live[key]} if key in live else kept
    own, found = wanted.get(key, {}), live.get(key, {})
    if not _is_map(own) or not _is_map(found):
        return wanted  # one of them has a plain value there, so there is no such path
    inner = _with_live(own, found, rest)
    return {**wanted, key: inner} if inner or key in wanted else wanted


def _is_map(value: Json) -> bool:
    return isinstance(value, dict) and not is_leaf(value)


def _under(path: Path, prefixes: list[Path]) -> bool:
    return any(path[: len(prefix)] == prefix for prefix in prefixes)


def parse_path(text: str) -> Path:
    """`spec.settings.work_mem` or `settings["a.b"]` as a path inside the fields."""
    import re

    parts = re.findall(r'\["([^"]*)"\]|([^.\[\]]+)', text)
    path = tuple(quoted or plain for quoted, plain in parts)
    return path[1:] if path[:1] == ("spec",) else path


def _path_order(path: Path) -> tuple[str, ...]:
    return tuple(str(part) for part in path)
