"""Expectations of rows: those that hold, those that do not, and those that there are not."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import check_data

Check = Callable[..., Any]
SECRET = "a private review that nobody but the owner of the rows may read in full"


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs the pass on sixty rows to train with and forty to test with."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("train", 60), ("test", 40)):
        rows = [
            {"id": f"{number:016d}", "text": f"{SECRET}\u2028{number}", "label": "ab"[number % 2]}
            for number in range(count)
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    for name in ("out", "work"):
        (tmp_path / name).mkdir()

    def run(*expectations: dict[str, Any]) -> Any:
        job = Job(
            {"expectations": list(expectations)},
            {"data": folder},
            tmp_path / "out",
            tmp_path / "work",
            1,
            lambda _text, _part: None,
        )
        return check_data.run(job)

    return run


def results(tmp_path: Path, name: str) -> Any:
    return json.loads((tmp_path / name / "expectations.json").read_text(encoding="utf-8"))


def test_what_holds(check: Check, tmp_path: Path) -> None:
    facts = check(
        {"expect": "expect_column_values_to_not_be_null", "column": "text"},
        {"expect": "column_values_to_be_in_set", "column": "label", "value_set": ["a", "b"]},
        {"expect": "ExpectTableRowCountToEqual", "value": 40, "split": "test"},
        {"expect": "table_row_count_to_equal", "value": 60, "split": "train"},
        {"expect": "ExpectTableRowCountToEqual", "value": 100, "split": "all"},
        # Sixteen digits stay a text.
        {"expect": "column_value_lengths_to_equal", "column": "id", "value": 16},
    )
    assert facts == {"passed": 6, "failed": []}
    found = results(tmp_path, "out")
    assert [one["success"] for one in found] == [True] * 6
    assert found[0]["rows"] == 100
    assert found[2]["observed"] == 40
    assert found[1]["arguments"] == {"column": "label", "value_set": ["a", "b"]}


def test_what_does_not_hold(check: Check, tmp_path: Path) -> None:
    with pytest.raises(Permanent) as caught:
        check(
            {"expect": "column_values_to_be_in_set", "column": "label", "value_set": ["a"], "split": "test"},
            {"expect": "table_row_count_to_be_between", "min_value": 1000},
            {"expect": "column_values_to_not_be_null", "column": "label"},
            {"expect": "column_value_lengths_to_be_between", "column": "text", "max_value": 5},
        )
    said = str(caught.value)
    assert "3 of 4 expectations fail" in said
    assert 'in_set of label (test): 20 of 40 rows are unexpected, such as "b"\n' in said
    assert "between (all): observed 100" in said
    assert "lengths_to_be_between of text (all): 100 of 100 rows" in said
    # Nothing is lost, and no row is shown as a whole.
    assert str(tmp_path / "work/expectations.json") in said
    assert not list((tmp_path / "out").iterdir())
    found = results(tmp_path, "work")
    assert [one["success"] for one in found] == [False, False, True, False]
    assert SECRET not in said
    assert SECRET not in json.dumps(found)


def test_what_cannot_be_computed_is_no_success(check: Check) -> None:
    with pytest.raises(Permanent, match=r'could not be computed.*"txet"'):
        check({"expect": "column_values_to_be_unique", "column": "txet"})


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        ({"expect": "column_values_to_not_be_nul", "column": "text"}, "column_values_to_not_be_null'"),
        ({"expect": "ExpectColumnToExists", "column": "text"}, "did you mean 'expect_column_to_exist'"),
        ({"column": "text"}, "Expectation 1: there is no ''"),
        ({"expect": "column_to_exist", "colum": "text"}, "takes no 'colum': did you mean 'column'"),
        ({"expect": "column_values_to_be_in_set", "column": "label"}, "is not complete: value_set"),
        ({"expect": "column_to_exist", "column": "text", "split": "tets"}, "did you mean 'test'"),
    ],
)
def test_expectations_that_there_are_not(check: Check, expectation: dict[str, Any], said: str) -> None:
    with pytest.raises(Permanent) as caught:
        check(expectation)
    assert said in str(caught.value)


def test_without_expectations_or_rows(check: Check, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="no expectations"):
        check()
    for path in (tmp_path / "data").iterdir():
        path.unlink()
    with pytest.raises(Permanent, match=r"none of train\.jsonl"):
        check({"expect": "column_to_exist", "column": "text"})


def test_nothing_is_reported_to_the_makers(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, where: called.append(where))
    check({"expect": "column_to_exist", "column": "text"})
    assert not called
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


@pytest.mark.parametrize(
    "name", ["ExpectColumnKLDivergenceToBeLessThan", "column_kl_divergence_to_be_less_than"]
)
def test_names_with_abbreviations(check: Check, name: str) -> None:
    wanted = {"values": ["a", "b"], "weights": [0.5, 0.5]}
    assert (
        check({"expect": name, "column": "label", "partition_object": wanted, "threshold": 0.1})["passed"]
        == 1
    )
