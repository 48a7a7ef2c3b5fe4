"""Folders that are no whole, safe model, and what is said of each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gamma_orch.runtimes import ModelBroken, load
from tests.kinds.models.built import Workshop

RUNTIMES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "onnxruntime": ("export",),
    "openvino": ("export", "to_openvino"),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


def cut(name: str) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return break_it


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def written(name: str, text: str) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        (folder / name).write_text(text)

    return break_it


CASES = [
    ("torch", gone("gamma-model.json"), "is not a model folder: it has no gamma-model.json"),
    ("torch", written("gamma-model.json", "{"), "Build or fetch the model anew"),
    (
        "torch",
        written("gamma-model.json", '{"labels": [], "who": 1}'),
        "not what this version of Gamma writes",
    ),
    ("torch", gone("tokenizer.json"), "has no tokenizer.json"),
    ("torch", gone("config.json"), "has no config.json"),
    ("torch", gone("model.safetensors"), "has no model.safetensors, which is its model"),
    ("torch", cut("model.safetensors"), "is cut off or no safetensors file"),
    ("torch", written("model.safetensors", "these are no weights"), "is cut off or no safetensors file"),
    ("torch", written("pytorch_model.bin", "x"), r"pytorch_model.bin is a pickle by its name \(.bin\)"),
    ("torch", written("optimizer.pt", "x"), "is a pickle by its name"),
    ("onnxruntime", written("scaler.joblib", "x"), "is a pickle by its name"),
    ("onnxruntime", cut("model.onnx"), "not a graph that ONNX Runtime can load"),
    ("onnxruntime", written("model.onnx", ""), "not a graph that ONNX Runtime can load"),
    ("onnxruntime", gone("model.onnx"), "has no model.onnx"),
    ("onnxruntime", cut("tokenizer.json"), "cannot be read as a tokenizer"),
    ("onnxruntime", cut("config.json"), "is not JSON"),
    ("openvino", cut("model.xml"), "is cut off or no XML"),
    ("openvino", cut("model.bin"), "is cut off: it has"),
    ("openvino", gone("model.bin"), "has no model.bin"),
]


@pytest.mark.parametrize(("runtime", "break_it", "message"), CASES)
def test_a_broken_folder_says_what_is_wrong(
    workshop: Workshop, tmp_path: Path, runtime: str, break_it: Callable[[Path], None], message: str
):
    folder = tmp_path / "model"
    shutil.copytree(workshop.model("bert", *RUNTIMES[runtime]), folder)
    load(folder)
    break_it(folder)
    with pytest.raises(ModelBroken, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_weights_that_the_task_needs_and_that_are_not_there(workshop: Workshop, tmp_path: Path):
    """transformers would fill in a random head, with a warning that nobody reads."""
    folder = tmp_path / "model"
    shutil.copytree(workshop.torch("bert", "embeddings"), folder)
    card = json.loads((folder / "gamma-model.json").read_text())
    (folder / "gamma-model.json").write_text(json.dumps({**card, "task": "text-classification"}))
    with pytest.raises(ModelBroken, match=r"has no weights for classifier.* so they would be random"):
        load(folder)
