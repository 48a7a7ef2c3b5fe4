"""A model from YAML to an artifact that an environment points at, with the real passes on a tiny one."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from gamma_orch import runtimes
from gamma_orch.store.artifacts import Artifacts
from tests.kinds.models.project import Done, gamma, project, write_rows

MODEL = "Model/sentiment"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose dev is converged."""
    folder = project(tmp_path_factory.mktemp("models") / "p", ("dev", "prod"))
    done = gamma(folder, "apply", "-e", "dev", "--yes")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The same project, to be changed."""
    return shutil.copytree(built, tmp_path / "p")


def store(folder: Path) -> Artifacts:
    return Artifacts(str(folder / ".gamma" / "artifacts"), folder / ".gamma" / "builds")


def change(done: Done, address: str = MODEL) -> Any:
    return next(one for one in done.json["changes"] if one["address"] == address)


def pointer(folder: Path, environment: str = "dev") -> Any:
    return store(folder).pointer(environment, MODEL)


def edit(folder: Path, old: str, new: str, file: str = "model") -> None:
    path = folder / "specs" / f"{file}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def ops(folder: Path) -> list[str]:
    return sorted(str(artifact.recipe["op"]) for artifact in store(folder).all())


def test_it_converges_and_the_next_plan_is_empty(built: Path) -> None:
    done = gamma(built, "plan", "-e", "dev")
    assert (done.code, done.out) == (0, "No changes. 2 resources of dev as declared.\n")
    status = gamma(built, "status", "-e", "dev", "-o", "json")
    assert status.json["ready"] is True


def test_what_was_built_runs(built: Path) -> None:
    found = store(built).find(pointer(built)["key"])
    assert found is not None
    model = runtimes.load_encoder(store(built).folder(found))
    logits = model.logits(["the film was great", "the film was awful"])
    assert logits.shape == (2, 2)
    assert model.card.labels == ("negative", "positive")
    assert model.card.precision == "int8"


def test_another_environment_reuses_it_and_builds_nothing(copy: Path) -> None:
    plan = gamma(copy, "plan", "-e", "prod", "-o", "json")
    assert plan.code == 2
    assert change(plan, "Dataset/reviews")["impact"]["note"].startswith("reuse (built for dev at ")
    before = ops(copy)
    done = gamma(copy, "apply", "-e", "prod", "--yes")
    assert done.code == 0, done.err
    assert ops(copy) == before
    assert pointer(copy, "prod")["digest"] == pointer(copy, "dev")["digest"]


def test_a_label_rebuilds_nothing(copy: Path) -> None:
    before = ops(copy)
    edit(copy, "{name: sentiment}", "{name: sentiment, labels: {team: a}, description: Words.}")
    plan = gamma(copy, "plan", "-e", "dev", "-o", "json")
    assert (change(plan)["action"], change(plan)["reason"]) == ("adopt", "metadata changed")
    assert gamma(copy, "apply", "-e", "dev", "--yes").code == 0
    assert ops(copy) == before


def test_a_changed_pass_rebuilds_from_there_on(copy: Path) -> None:
    before = ops(copy)
    edit(copy, "{pass: quantize-dynamic}", "{pass: quantize-dynamic, perChannel: false}")
    plan = gamma(copy, "plan", "-e", "dev", "-o", "json")
    note = change(plan)["impact"]["note"]
    assert note.startswith("build: 4 passes (quantize-dynamic, evaluate, benchmark")
    assert "accuracy" in note  # what the last one came to
    done = gamma(copy, "apply", "-e", "dev", "--yes")
    assert done.code == 0, done.err
    added = ops(copy)
    for op in before:
        added.remove(op)
    assert added == ["benchmark", "evaluate", "evaluate", "quantize_dynamic", "report"]
    assert pointer(copy)["told"]["foreseen"]["passes"] == 4


def test_data_that_changed_is_seen_and_learned_from(copy: Path) -> None:
    old = pointer(copy)
    write_rows(copy, 200, seed=5)
    plan = gamma(copy, "plan", "-e", "dev")
    assert "data/reviews.csv changed since it was read" in plan.out
    assert "known after Dataset/reviews is applied" in plan.out
    done = gamma(copy, "apply", "-e", "dev", "--yes")
    assert done.code == 0, done.err
    assert pointer(copy)["digest"] != old["digest"]
    assert gamma(copy, "plan", "-e", "dev").code == 0


def test_a_gate_that_fails_leaves_what_was_there(copy: Path) -> None:
    old = pointer(copy)
    edit(copy, "{metric: size, max: 10}", "{metric: size, max: 0.001}")
    done = gamma(copy, "apply", "-e", "dev", "--yes")
    assert done.code == 1
    assert "does not pass: size:" in done.err
    assert "Nothing points at it" in done.err
    assert pointer(copy) == old


def test_a_flipped_byte_is_found_before_it_is_loaded(copy: Path) -> None:
    digest = pointer(copy)["digest"]
    file = copy / ".gamma" / "artifacts" / "objects" / digest / "model.onnx"
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(body)
    plan = gamma(copy, "plan", "-e", "dev", "-o", "json")
    assert (change(plan)["action"], change(plan)["reason"]) == ("update", "unhealthy")
    done = gamma(copy, "apply", "-e", "dev", "--yes")
    assert done.code == 0, done.err
    assert pointer(copy)["digest"] == digest
    assert gamma(copy, "plan", "-e", "dev").code == 0


def test_models_are_listed_shown_and_compared(built: Path) -> None:
    listed = gamma(built, "models", "ls", "-o", "json").json["models"]
    assert [one["address"] for one in listed] == ["Dataset/reviews", MODEL]
    card = gamma(built, "models", "show", "sentiment").out
    assert card.startswith("# sentiment\n")
    assert "quantize-dynamic" in card
    digest = listed[1]["digest"]
    compared = gamma(built, "models", "compare", "sentiment", digest[:10]).out
    assert "export+quantize-dynamic" in compared
    wrong = gamma(built, "models", "show", "sentimen")
    assert wrong.code == 1
    assert "did you mean 'sentiment'?" in wrong.err


def test_collecting_spares_what_anybody_points_at_or_did_lately(copy: Path) -> None:
    old = pointer(copy)
    edit(copy, "{pass: quantize-dynamic}", "{pass: quantize-dynamic, perChannel: false}")
    assert gamma(copy, "apply", "-e", "dev", "--yes").code == 0
    kept = gamma(copy, "models", "gc", "--older-than", "1d", "-o", "json").json
    assert kept["removed"] == []
    gone = gamma(copy, "models", "gc", "--older-than", "0s", "-o", "json").json
    assert old["key"] in gone["removed"]
    assert gamma(copy, "plan", "-e", "dev").code == 0
    assert store(copy).find(old["key"]) is None


def test_deleting_the_yaml_takes_the_pointer_away(copy: Path) -> None:
    (copy / "specs" / "model.yaml").unlink()
    done = gamma(copy, "apply", "-e", "dev", "--yes")
    assert done.code == 0, done.err
    assert pointer(copy) is None


def test_the_same_recipe_elsewhere_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    other = project(tmp_path / "elsewhere" / "deeper")
    assert gamma(other, "apply", "-e", "dev", "--yes").code == 0
    here, there = pointer(built), pointer(other)
    assert (here["key"], here["digest"]) == (there["key"], there["digest"])
    bytes_of = {one.key: one.digest for one in store(built).all() if one.recipe["op"] not in MEASURES}
    assert bytes_of == {one.key: one.digest for one in store(other).all() if one.recipe["op"] not in MEASURES}


MEASURES = ("benchmark", "report")  # times are never the same twice


@pytest.mark.parametrize(
    ("right", "wrong", "line", "hint"),
    [
        ("dataset: reviews", "dataset: revues", 8, "did you mean 'reviews'?"),
        ("quantize-dynamic", "quantise-dynamic", 9, "did you mean 'quantize-dynamic'?"),
        ("learningRate", "learnRate", 8, "did you mean 'learningRate'?"),
        ("[negative, positive]", "[negative, positive, 3]", 7, ""),
        ("metric: size, max: 10", "metric: size", 12, ""),
        ("metric: size", "metric: perplexity", 12, "measured are accuracy"),
    ],
)
def test_a_mistake_is_said_at_its_line_before_anything_is_built(
    right: str, wrong: str, line: int, hint: str, tmp_path: Path
) -> None:
    folder = project(tmp_path / "p")
    edit(folder, right, wrong)
    done = gamma(folder, "validate", "-e", "dev", "-o", "json")
    assert done.code == 1
    [said] = [one for one in done.json["diagnostics"] if one["severity"] == "error"]
    assert (said["line"], said["hint"].startswith(hint)) == (line, True), said
    assert not (folder / ".gamma" / "artifacts").exists()
