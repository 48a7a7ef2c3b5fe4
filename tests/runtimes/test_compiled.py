"""What OpenVINO compiles is kept for the next process, and answers the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gamma_orch.runtimes import load_encoder, load_generator
from gamma_orch.runtimes.ov import OvGraph
from tests.kinds.models.built import Workshop
from tests.kinds.models.tiny import texts

WANTED = texts(4)
LOAD = """
import sys
from pathlib import Path
from gamma_orch.runtimes import load_encoder
for _ in range(5):
    answer = load_encoder(Path(sys.argv[1]), cache=Path(sys.argv[2])).logits([sys.argv[3]])
    print(answer.tolist())
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def encoder(workshop: Workshop) -> Path:
    return workshop.model("bert", "export", "to_openvino")


def test_the_second_that_loads_maps_what_the_first_compiled(encoder: Path, tmp_path: Path):
    plain = load_encoder(encoder).logits(WANTED)
    first = load_encoder(encoder, cache=tmp_path / "a").logits(WANTED)
    [blob] = (tmp_path / "a").glob("*.blob")
    written = blob.stat().st_mtime_ns
    second = load_encoder(encoder, cache=tmp_path / "a")
    assert np.array_equal(first, plain)
    assert np.array_equal(second.logits(WANTED), plain)
    assert [path.name for path in (tmp_path / "a").glob("*.blob")] == [blob.name]
    assert blob.stat().st_mtime_ns == written
    assert str(blob) in Path("/proc/self/maps").read_text()


def test_threads_are_those_of_the_process_that_loads(encoder: Path, tmp_path: Path):
    for threads in (1, 2, 1):
        graph = OvGraph(encoder / "model.xml", threads, cache=tmp_path)
        assert graph._compiled.get_property("INFERENCE_NUM_THREADS") == threads


def test_what_is_cut_off_is_compiled_anew(encoder: Path, tmp_path: Path):
    plain = load_encoder(encoder, cache=tmp_path).logits(WANTED)
    [blob] = tmp_path.glob("*.blob")
    whole = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(whole[: len(whole) // 2])
    assert np.array_equal(load_encoder(encoder, cache=tmp_path).logits(WANTED), plain)


def test_several_processes_at_once(encoder: Path, tmp_path: Path):
    command = [sys.executable, "-c", LOAD, str(encoder), str(tmp_path), WANTED[0]]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {line for one in running for line in one.communicate(timeout=120)[0].splitlines()}
    assert [one.returncode for one in running] == [0, 0, 0]
    assert said == {str(load_encoder(encoder).logits([WANTED[0]]).tolist())}


def test_one_that_writes_keeps_its_state_inside(workshop: Workshop, tmp_path: Path):
    folder = workshop.model("gpt2", "export", "to_openvino")
    plain = load_generator(folder).generate_ids([[5, 6, 7]], 6)
    assert [load_generator(folder, cache=tmp_path).generate_ids([[5, 6, 7]], 6) for _ in "ab"] == [plain] * 2
    assert list(tmp_path.glob("*.blob"))


@pytest.mark.parametrize("steps", [(), ("export",)])
def test_other_runtimes_need_none(workshop: Workshop, tmp_path: Path, steps: tuple[str, ...]):
    assert len(load_encoder(workshop.model("bert", *steps), cache=tmp_path).logits(WANTED)) == len(WANTED)
    assert not list(tmp_path.iterdir())
