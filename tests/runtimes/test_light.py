"""A server that runs ONNX or OpenVINO loads neither PyTorch nor transformers, nor the rest of Gamma."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kinds.models.built import Workshop

SERVE = """
import sys
from pathlib import Path
from gamma_orch.runtimes import load
for folder in sys.argv[1:]:
    model = load(Path(folder))
    if hasattr(model, "generate"):
        model.generate(["the film"], 3)
        list(model.stream("the film", 3))
    else:
        model.logits(["good", "a bad film"])
heavy = [n for n in ("torch", "transformers", "optimum", "nncf", "onnx", "pandas") if n in sys.modules]
ours = [name for name in sys.modules if name.startswith("gamma_orch.") and ".runtimes" not in name]
print(heavy, ours)
"""


@pytest.mark.parametrize("steps", [("export",), ("export", "to_openvino")], ids=["onnxruntime", "openvino"])
def test_nothing_heavy_is_imported(tmp_path: Path, steps: tuple[str, ...]):
    workshop = Workshop(tmp_path)
    folders = [str(workshop.model(kind, *steps)) for kind in ("bert", "gpt2", "bart")]
    done = subprocess.run(
        [sys.executable, "-c", SERVE, *folders], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] []"
