"""The first decision table: `cases/compare/*.yaml`, one row or one combination of rows a file.

A case has `wanted`, `applied` (left out: no record) and `live` (fields, `absent` or `unreadable`);
further `ignore`, `immutable`, `derives`, and `changed`, the part of the fingerprint that differs from
the recorded one. `expect` is written by hand: it is the specification.
"""

from pathlib import Path

import pytest

from gamma_orch.core.change import MISSING
from gamma_orch.core.compare import compare, paths, same, verdict
from gamma_orch.core.fingerprint import Fingerprint
from gamma_orch.core.kind import Traits
from gamma_orch.core.leaves import encode
from gamma_orch.core.observation import Seen
from gamma_orch.core.record import Record
from gamma_orch.core.resource import Lifecycle
from tests.core.reading import cases, observation, place, read, tree

RECORDED = Fingerprint("c", "m", "p")


@pytest.mark.parametrize("path", cases("compare"), ids=lambda path: path.stem)
def test_compare(path: Path) -> None:
    case = read(path)
    wanted = encode(tree(case["wanted"]))
    applied = encode(tree(case["applied"])) if "applied" in case else None
    live = observation(case["live"])
    parts = {
        "content": "c",
        "metadata": "m",
        "parents": "p",
        **({case["changed"]: "other"} if "changed" in case else {}),
    }
    change = compare(
        place("a"),
        wanted,
        Fingerprint(**parts),
        Lifecycle(ignore=tuple(case.get("ignore", ()))),
        Record(applied, {}, RECORDED) if applied is not None else None,
        live,
        Traits(immutable=frozenset(case.get("immutable", ["fixed"])), derives=case.get("derives", False)),
    )
    got = {
        "action": change.action.value,
        "reason": change.reason.value,
        "detail": change.detail,
        "fields": {".".join(map(str, field.path)): field.verdict.value for field in change.fields},
    }
    assert got == {"detail": "", "fields": {}, **case["expect"]}
    assert list(got["fields"]) == list(case["expect"].get("fields", {})), "in the order of the paths"
    _shows_the_three(change.fields, wanted, applied or {}, live.fields if isinstance(live, Seen) else {})


def _shows_the_three(fields, wanted, applied, live) -> None:
    """Each field says what was applied, what is wanted and what is there."""
    for field in fields:
        sides = [dict(paths(side)).get(field.path, MISSING) for side in (applied, wanted, live)]
        assert [field.was, field.wanted, field.live] == sides


def test_foreign_is_a_verdict_of_its_own() -> None:
    """The row that no object ever shows: neither wanted nor applied."""
    assert verdict(MISSING, MISSING, 5) == "foreign"


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, 1, True),
        (True, True, True),
        (True, 1, False),
        (0, False, False),
        (None, None, True),
        (None, MISSING, False),
        (MISSING, MISSING, True),
        ("", MISSING, False),
        ([1], [1], True),
        ([1], [2], False),
    ],
)
def test_same_is_equality_of_json(a, b, equal: bool) -> None:
    assert same(a, b) is equal
    assert same(b, a) is equal
