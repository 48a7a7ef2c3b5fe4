"""The language as a table: one small file a case. Adding a case is adding a file.

`cases/load/NAME.yaml` is one file's bytes; beside it, `NAME.txt` has what `load` makes of them.
`cases/resolve/NAME.txt` is a whole project: its files, each below a line `-- path --`, and at the
end, below `-- expected --`, the resources or the diagnostics. UPDATE_GOLDEN=1 writes expectations.
"""

from pathlib import Path

import pytest

from gamma_orch.core.canonical import canonical
from gamma_orch.spec.codes import Code
from gamma_orch.spec.load import load
from tests.spec.shown import CASES, compare, diagnostics_shown, resource_shown, run, sections

LOAD = sorted((CASES / "load").glob("*.yaml"))
RESOLVE = sorted((CASES / "resolve").glob("*.txt"))

# Codes that no small file can show; each names the test that does.
ELSEWHERE = {
    Code.TOO_LARGE: "test_load.py::test_a_file_larger_than_the_limit",
    Code.TOO_MANY_DOCUMENTS: "test_load.py::test_too_many_documents",
    Code.MORE: "test_load.py::test_problems_without_end",
    Code.OUTSIDE: "test_files.py::test_a_link_out_of_the_project",
    Code.UNREADABLE: "test_files.py::test_what_is_no_regular_file",
    Code.TREE_TOO_LARGE: "test_files.py::test_a_tree_larger_than_the_limit",
    Code.PLUGIN: "test_registry.py::test_a_document_of_a_kind_that_cannot_be_imported",
    Code.EXPANSION: "test_expressions.py::test_growth_is_bounded",
}


@pytest.mark.parametrize("path", LOAD, ids=lambda path: path.stem)
def test_load(path: Path) -> None:
    loaded = load({path.name: path.read_bytes()})
    got = diagnostics_shown(loaded.diagnostics)
    for document in loaded.documents.items:
        got += f"{document.line}{' dynamic' if document.dynamic else ''} {canonical(document.data)}\n"
    expected = path.with_suffix(".txt")
    wanted = expected.read_text(encoding="utf-8") if expected.exists() else ""
    compare(expected, got, wanted, got)


@pytest.mark.parametrize("path", RESOLVE, ids=lambda path: path.stem)
def test_resolve(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    files = sections(text)
    wanted = files.pop("expected", "")
    environment = "prod" if "as prod" in text.partition("\n-- ")[0] else "dev"
    found, resolution = run({name: body.encode() for name, body in files.items()}, environment)
    got = diagnostics_shown(found)
    if resolution.desired is not None:
        got += "".join(resource_shown(resource) for resource in resolution.desired.resources.values())
    compare(path, got, wanted, text.partition("-- expected --\n")[0] + "-- expected --\n" + got)


def test_every_code_has_a_case() -> None:
    goldens = [*(CASES / "load").glob("*.txt"), *RESOLVE]
    shown = {line for golden in goldens for line in golden.read_text(encoding="utf-8").split()}
    for code in Code:
        if code not in shown:
            file, _, test = ELSEWHERE[code].partition("::")
            assert f"def {test}(" in (Path(__file__).parent / file).read_text(encoding="utf-8"), code


def test_every_load_case_has_its_expectation() -> None:
    assert {path.stem for path in LOAD} == {path.stem for path in (CASES / "load").glob("*.txt")}
