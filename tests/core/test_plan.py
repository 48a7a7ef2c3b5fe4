"""The planner as a table: `cases/plan/*.yaml`, one small history a file, and what is planned on it.

A case has `applied` (what was done before), `wanted`, and `world` where it is not as it was left;
further `begun`, `failed`, `deleted`, `consents`, `kinds`. `expect` is the plan as text.
UPDATE_GOLDEN=1 writes it.
"""

import textwrap
from pathlib import Path

import pytest

from gamma_orch.core.planner import plan
from tests.core.reading import ENVIRONMENT, agree, cases, kinds_of, ledger, plan_shown, read, resources, world


@pytest.mark.parametrize("path", cases("plan"), ids=lambda path: path.stem)
def test_plan(path: Path) -> None:
    case = read(path)
    kinds = kinds_of(case)
    known = ledger(case, kinds)
    made = plan(ENVIRONMENT, resources(case.get("wanted")), known, world(case, known), kinds)
    got = plan_shown(made)
    text = path.read_text(encoding="utf-8").partition("expect: |\n")[0]
    agree(path, got, case.get("expect", ""), text + "expect: |\n" + textwrap.indent(got, "  "))
