"""The second decision table: `cases/settle/*.yaml`, what becomes of one step that was cut off.

A case has the open step `begun`, what was applied before it (`was`), and `live`; further
`convergent` and `consent`. `expect` is `done`, the text of the failure, or `in doubt`, which is to
leave it open. It is written by hand: it is the specification.
"""

from pathlib import Path

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.event import Type
from gamma_orch.core.fingerprint import Fingerprint
from gamma_orch.core.kind import Traits
from gamma_orch.core.leaves import encode
from gamma_orch.core.ledger import Begun, Entry, Ledger
from gamma_orch.core.observation import Seen
from gamma_orch.core.record import Record
from gamma_orch.core.settle import differences, settle
from tests.core.reading import cases, observation, place, read, tree

A = place("a")


@pytest.mark.parametrize("path", cases("settle"), ids=lambda path: path.stem)
def test_settle(path: Path) -> None:
    case = read(path)
    begun = _begun(case["begun"])
    entries = _entries(case, begun)
    observations = {A: observation(case["live"])} if "live" in case else {}
    events = settle(
        Ledger("dev", 0, entries), observations, {"Thing": Traits(convergent=case.get("convergent", False))}
    )
    if case["expect"] == "in doubt":
        assert events == []
        return
    (event,) = events
    assert (event.address, event.plan, event.step) == (A, "the plan", "the key"), "closes just this step"
    if case["expect"] != "done":
        assert event.type is Type.FAILED
        assert event.data["error"] == case["expect"]
        return
    assert event.type is Type.DONE
    assert event.data["movedFrom"] == (str(begun.moved_from) if begun.moved_from else None)
    outputs = case.get("outputs", {})
    assert event.data["record"] == ({"what": "it writes", "outputs": outputs} if begun.record else None)


def _begun(body) -> Begun:
    planned = encode(tree(body["planned"]))
    return Begun(
        key="the key",
        plan="the plan",
        opcode=body["opcode"],
        seq=7,
        attempt=1,
        planned=planned,
        before=body["before"],
        record={"what": "it writes"} if planned is not None else None,
        moved_from=place(body["moved_from"]) if "moved_from" in body else None,
    )


def _entries(case, begun: Begun) -> dict[Address, Entry]:
    record = Record(encode(tree(case["was"])), {}, Fingerprint("", "", "")) if "was" in case else None
    consent = "ada" if case.get("consent") else ""
    if "was_of" in case:
        return {A: Entry(begun=begun, consent=consent), place(case["was_of"]): Entry(record)}
    return {A: Entry(record, begun=begun, consent=consent)}


def test_only_open_steps_are_settled() -> None:
    """A record without an open step is nobody's business here."""
    known = Ledger("dev", 0, {A: Entry(Record({"size": 1}, {}, Fingerprint("", "", "")), error="old")})
    assert settle(known, {A: Seen({"size": 5})}, {}) == []


def test_each_in_the_order_of_addresses() -> None:
    """Two processes that settle the same world write the same events."""
    begun = _begun({"opcode": "create", "before": None, "planned": {"size": 1}})
    names = [place(name) for name in "cab"]
    events = settle(
        Ledger("dev", 0, {name: Entry(begun=begun) for name in names}),
        {name: Seen({"size": 1}) for name in names},
        {},  # also a kind whose plugin is gone is settled
    )
    assert [event.address for event in events] == sorted(names)


@pytest.mark.parametrize(
    ("planned", "live", "was", "wrong"),
    [
        ({"a": 1}, {"a": 1, "theirs": 2}, {}, []),
        ({"a": 1}, {"a": 2}, {}, [("a",)]),
        ({"a": 1}, {}, {}, [("a",)]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {}, [("a", "c")]),
        ({"a": True}, {"a": 1}, {}, [("a",)]),
        ({"a": {"$secret": "pw", "digest": "1"}}, {}, {}, []),
        ({"a": {"$secret": "pw", "digest": "1"}}, {"a": "plain"}, {}, [("a",)]),
        ({}, {"a": 1}, {"a": 1}, [("a",)]),
        ({}, {"a": 2}, {"a": 1}, []),
        ({}, {}, {"a": 1}, []),
        ({"b": 1}, {"a": 1, "b": 2}, {"a": 1}, [("b",), ("a",)]),
    ],
)
def test_differences(planned, live, was, wrong) -> None:
    """What a read after a step must show: the planned, and not what was released."""
    assert differences(planned, live, was) == wrong
