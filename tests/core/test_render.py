"""What people and scripts read: `golden/render/*`, one file a value and style.

UPDATE_GOLDEN=1 writes them; then read the difference as a user would.
"""

import json
from pathlib import Path

import pytest

from gamma_orch.core.change import MISSING, Action, Impact, Impacts
from gamma_orch.core.condition import Condition, Health, Truth
from gamma_orch.core.diagnostic import Diagnostic, Severity, Span
from gamma_orch.core.leaves import encode
from gamma_orch.core.plan import Plan
from gamma_orch.core.planner import plan
from gamma_orch.core.render import (
    beside,
    diagnostic_json,
    diagnostics_text,
    duration,
    headline,
    plan_json,
    plan_markdown,
    plan_text,
    sealed,
    status_json,
    status_lines,
    table_markdown,
    value_text,
)
from tests.core.reading import agree, cases, kinds_of, ledger, place, read, resources, tree, world

GOLDEN = Path(__file__).parents[1] / "golden" / "render"
BY_ACTION = {
    ("Thing", "update"): Impact(2.5, 4),
    ("Thing", "create"): Impact(0.02, 1),
    ("Thing", "delete"): Impact(None, 0),
    ("Thing", "replace"): Impact(note="build: 3 of 4 passes"),
}


def impacts(plan: Plan) -> Impacts:
    return {
        c.address: BY_ACTION[c.address.kind, c.action.value]
        for c in plan.changes
        if (c.address.kind, c.action.value) in BY_ACTION
    }


# One of everything that a plan can say.
EVERYTHING = """
kinds: {Thing: {}}
applied:
  drift: {spec: {size: 1}}
  conflict: {spec: {size: 1}}
  fixed: {spec: {fixed: x}}
  gone: {spec: {size: 1}}
  going: {spec: {size: 1}}
  kept: {spec: {size: 1}}
  owned: {spec: {size: 1}}
  retained: {retain: true}
  protected: {protect: true}
  hidden: {spec: {size: 1}}
  old: {spec: {size: 1}}
  rotated: {spec: {pw: "${secret.pw 1}", url: "db://u:${secret.pw 1}@x"}}
  released: {spec: {size: 1, colour: red, "odd.key": {"a b": 1}}}
  taken: {spec: {size: 1, colour: red}}
  below: {needs: [hidden]}
  child: {spec: {size: 1}, needs: [fixed]}
wanted:
  drift: {spec: {size: 1}}
  conflict: {spec: {size: 3}}
  fixed: {spec: {fixed: y}}
  gone: {spec: {size: 1}}
  kept: {spec: {size: 1}}
  owned: {spec: {size: 1}, owner: ada}
  hidden: {spec: {size: 2}}
  new-name: {spec: {size: 2}, moved: old}
  new:
    spec:
      size: 1
      empty: ""
      flag: false
      nothing: null
      list: []
      zero: 0
      text: "two\\nlines | and a pipe"
      long: "0123456789012345678901234567890123456789012345678901234567890123456789012345"
      list2: [1, {a: b}]
      up: "${fixed.id}"
      pw: "${secret.pw 1}"
  found: {spec: {size: 1}}
  rotated: {spec: {pw: "${secret.pw 2}", url: "db://u:${secret.pw 2}@x"}}
  released: {spec: {size: 1}}
  taken: {spec: {size: 2}}
  below: {spec: {size: 1}, needs: [hidden]}
  child: {spec: {size: 1}, needs: [fixed]}
  later: {spec: {up: "x-${new.id}"}}
world:
  drift: {size: 9}
  conflict: {size: 2}
  gone: absent
  hidden: unreadable
  found: {size: 2}
  taken: {size: 1, colour: blue}
  stray: {size: 1}
"""


def planned(text: str, commit: str = "") -> Plan:
    import yaml

    case = yaml.safe_load(text)
    kinds = kinds_of(case)
    known = ledger(case, kinds)
    return plan("dev", resources(case.get("wanted")), known, world(case, known), kinds, commit)


PLANS = {
    "everything": planned(EVERYTHING, "c" * 40),
    "no-changes": planned("applied: {a: {}, b: {}}\nwanted: {a: {}, b: {}}"),
    "nothing": planned("wanted: {}"),
    "only-refused": planned("wanted: {a: {}}\nworld: {a: unreadable}"),
    "only-extra": planned("world: {a: {size: 1}}"),
}


def golden(name: str, got: str) -> None:
    path = GOLDEN / name
    agree(path, got, path.read_text(encoding="utf-8") if path.exists() else "", got)


LONG = 'sum by (route) (rate(gamma_requests_total{job="api",status=~"5..",tenant="acme"}[5m])) > '


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (("a", "b"), ["a", "b"]),
        ((LONG + "1", LONG + "2"), [f"…{LONG[-24:]}1", f"…{LONG[-24:]}2"]),
        ((LONG, LONG), [value_text(LONG)] * 2),
        (("x" + LONG, "y" + LONG), [value_text("x" + LONG), value_text("y" + LONG)]),
        ((MISSING, LONG), ["(none)", value_text(LONG)]),
        ((MISSING, LONG + "1", LONG + "2"), ["(none)", f"…{LONG[-24:]}1", f"…{LONG[-24:]}2"]),
        ((LONG + "1" * 99, LONG + "2"), [f"…{LONG[-24:]}{'1' * 46}…", f"…{LONG[-24:]}2"]),
    ],
)
def test_of_long_values_the_part_that_differs(values: tuple[str, ...], shown: list[str]) -> None:
    assert beside(*values) == shown


@pytest.mark.parametrize("name", PLANS)
def test_plans(name: str) -> None:
    """Text, with and without the kept ones; Markdown; JSON."""
    golden(f"plan-{name}.txt", plan_text(PLANS[name], impacts(PLANS[name])))
    golden(f"plan-{name}-all.txt", plan_text(PLANS[name], everything=True))
    golden(f"plan-{name}.md", plan_markdown(PLANS[name], impacts(PLANS[name])))
    golden(
        f"plan-{name}.json",
        json.dumps(plan_json(PLANS[name], impacts(PLANS[name])), indent=1, ensure_ascii=False) + "\n",
    )


def test_every_action_is_among_them() -> None:
    """So that no line of a plan goes unseen."""
    assert {change.action for change in PLANS["everything"].changes} == set(Action)


def test_every_change_has_its_line() -> None:
    """In each style, whatever it is."""
    made = PLANS["everything"]
    text, markdown = plan_text(made, everything=True), plan_markdown(made)
    assert len(plan_json(made)["changes"]) == len(made.changes)
    for change in made.changes:
        assert f" {change.address}  {headline(change)}" in text
        assert (f"`{change.address}` |" in markdown) is (change.action is not Action.KEEP)


DIAGNOSTICS = [
    Diagnostic(
        "GAM201",
        "There is no 'colr'.",
        Span("specs/a.yaml", 3, 7),
        ("spec", "columns", 0),
        place("a"),
        "did you mean 'color'?",
    ),
    Diagnostic("GAM101", "The file is binary.", Span("specs/b.yaml")),
    Diagnostic("GAM301", "Nobody uses it.", severity=Severity.WARNING, address=place("b")),
]


def test_diagnostics() -> None:
    """A place to click, the code, where inside, the hint; nothing for nothing."""
    golden("diagnostics.txt", diagnostics_text(DIAGNOSTICS))
    golden("diagnostics.json", json.dumps([diagnostic_json(d) for d in DIAGNOSTICS], indent=1) + "\n")
    assert diagnostics_text([]) == ""
    assert diagnostics_text(DIAGNOSTICS[:1]).endswith("\n\n1 problem found.\n")


CONDITIONS = [
    Condition(place("a"), Truth.TRUE, Health.READY, "in sync", since="2026-01-01T00:00:00.000Z"),
    Condition(place("longer-name"), Truth.FALSE, Health.DRIFTED, "drifted"),
    Condition(place("b"), Truth.UNKNOWN, Health.UNKNOWN, "unreadable", "no route to it"),
]


def test_status() -> None:
    """The ready ones only on demand; one that is not makes the environment not ready."""
    golden("status.txt", "\n".join(status_lines("dev", CONDITIONS)) + "\n")
    golden("status-all.txt", "\n".join(status_lines("dev", CONDITIONS, everything=True)) + "\n")
    golden("status.json", json.dumps(status_json("dev", "abc", CONDITIONS), indent=1) + "\n")
    assert status_json("dev", "", CONDITIONS[:1])["ready"] is True
    assert status_json("dev", "", [])["release"] is None
    assert status_lines("dev", CONDITIONS[:1]) == ["dev: 1 of 1 resource ready"]


def test_a_table_holds_what_has_bars_and_lines_in_it() -> None:
    """A cell stays a cell."""
    assert table_markdown(["a", "b"], [["x|y", "1\n2"]]) == "| a | b |\n|---|---|\n| x\\|y | 1 2 |\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0204, "20 ms"),
        (1, "1 s"),
        (3.44, "3.4 s"),
        (12.4, "12 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (125.9, "2 min 05 s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    """As one would say it."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (MISSING, "(none)"),
        (None, "null"),
        (True, "true"),
        ("", '""'),
        ("plain", "plain"),
        ("two\n lines", "two lines"),
        ([1, "a"], '[1, "a"]'),
        ({"b": 1, "a": "é"}, '{"a": "é", "b": 1}'),
        ("x" * 72, "x" * 72),
        ("x" * 73, "x" * 71 + "…"),
        ("${secret.pw 1}", "(secret pw)"),
        ("a ${secret.pw 1} b", "a (secret pw) b"),
        ("${a.id}", "(Thing/a.id)"),
        ("${?known later}", "(known later)"),
    ],
)
def test_values(value, text: str) -> None:
    """On one line, and a secret by its name only."""
    assert value_text(encode(tree(value))) == text


@pytest.mark.parametrize("name", PLANS)
def test_a_saved_plan_is_sealed(name: str) -> None:
    """Through a file and back; estimates and the summary are no part of it."""
    document = json.loads(json.dumps(plan_json(PLANS[name], impacts(PLANS[name]))))
    assert sealed(document)
    assert sealed({**document, "summary": {}})
    for change in document["changes"]:
        change["impact"] = None
    assert sealed(document)


@pytest.mark.parametrize(
    "path",
    [
        "environment",
        "parent",
        "commit",
        "desired",
        "changes.0.action",
        "changes.2.fields.0.wanted",
        "steps.0.planned",
        "steps.0.opcode",
        "steps.1.needs",
        "steps.0.key",
        "extras",
        "id",
    ],
)
def test_a_touched_plan_is_not(path: str) -> None:
    """Any other part, changed or taken out."""
    for touch in ("change", "remove"):
        document = json.loads(json.dumps(plan_json(PLANS["everything"])))
        *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        here = document
        for part in way:
            here = here[part]
        if touch == "change":
            here[last] = "touched"
        else:
            del here[last]
        assert not sealed(document)


def test_no_secret_is_in_any_style() -> None:
    """There are only names and digests to begin with; the digest is for the JSON alone."""
    made = PLANS["everything"]
    assert "digest" not in plan_text(made, everything=True) + plan_markdown(made)


def test_cases_render() -> None:
    """All the histories of `cases/plan`, in each style: none of them trips the rendering."""
    for path in cases("plan"):
        case = read(path)
        kinds = kinds_of(case)
        known = ledger(case, kinds)
        made = plan("dev", resources(case.get("wanted")), known, world(case, known), kinds)
        assert plan_text(made, everything=True).count("\n") > len(made.changes) - 1
        assert plan_markdown(made).startswith("### Gamma plan for `dev`\n")
        assert sealed(plan_json(made))
