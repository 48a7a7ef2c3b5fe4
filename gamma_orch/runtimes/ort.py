"""ONNX Runtime: one session, one thread count, nothing that spins.

Spinning threads of several workers on one machine take the processor from each other, so they sleep
instead; a server runs more workers, not more threads.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gamma_orch.runtimes.errors import ModelBroken
from gamma_orch.runtimes.graph import Value


class OrtGraph:
    shapes_cost = False

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        # An arena keeps what the largest batch needed for ever. Measured on a MiniLM in INT8, after batches
        # of 16 texts of 128 tokens: 144 MB resident with it, 60 to 110 MB without, and the same speed
        # within the noise (4.0 to 4.3 ms for one text of 32 tokens).
        settings.enable_cpu_mem_arena = False
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelBroken(
                f"{path} is not a graph that ONNX Runtime can load: {_first(error)}. "
                "Is the file whole? Build or fetch the model anew."
            ) from error
        self._shapes = {i.name: i.shape for i in self._session.get_inputs()}
        self.inputs: Sequence[str] = tuple(self._shapes)
        self.outputs: Sequence[str] = tuple(o.name for o in self._session.get_outputs())
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy

    def run(self, feeds: Mapping[str, Value], keep: Sequence[str] = ()) -> dict[str, Value]:
        if not keep:
            return dict(zip(self.outputs, self._session.run(None, dict(feeds)), strict=True))
        given = {name: self._given(value) for name, value in feeds.items()}
        values = self._session.run_with_ort_values(list(self.outputs), given)
        return {
            name: value if name in keep else value.numpy()
            for name, value in zip(self.outputs, values, strict=True)
        }

    def shape(self, name: str) -> Sequence[int | None]:
        return [size if isinstance(size, int) else None for size in self._shapes[name]]

    def _given(self, value: Value) -> Any:
        return self._value(value) if hasattr(value, "dtype") else value


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]
