"""OpenVINO on the processor: latency first, one stream, weights mapped from the file.

With a `cache`, a folder of the caller's, a graph is compiled once: what comes of it is mapped from a file,
and shared by all processes that load the same graph.
"""

import contextlib
import fcntl
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gamma_orch.runtimes.errors import ModelBroken
from gamma_orch.runtimes.graph import Value
from gamma_orch.runtimes.past import Past, empty_shape, pairs

if TYPE_CHECKING:
    import numpy as np

# What multiplications are done in. auto: OpenVINO's own choice, bfloat16 where the processor has it.
Compute = Literal["float32", "bfloat16", "auto"]


class OvGraph:
    # Measured on a MiniLM in INT8: code is made for each shape, so its first run takes 1.7 times as long as
    # the next, and 3 MB stay. 300 shapes of short texts were 950 MB.
    shapes_cost = True

    def __init__(
        self, path: Path, threads: int, compute: Compute = "float32", cache: Path | None = None
    ) -> None:
        self._compiled = _compiled(path, threads, compute, lambda model: None, cache)
        # One array may go by several names: what a conversion found to do nothing was taken out.
        self._shapes = {
            name: value.partial_shape for value in self._compiled.inputs for name in sorted(value.names)
        }
        self._names = [sorted(value.names) for value in self._compiled.outputs]
        self.inputs: Sequence[str] = tuple(self._shapes)
        self.outputs: Sequence[str] = tuple(name for names in self._names for name in names)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self, feeds: Mapping[str, Value], keep: Sequence[str] = ()) -> dict[str, Value]:
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        # What the caller gave is read in place; what it gets is its own, for the request is used again.
        request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        found = [request.get_output_tensor(number).data.copy() for number in range(len(self._names))]
        self._idle.put(request)
        return {name: array for names, array in zip(self._names, found, strict=True) for name in names}

    def shape(self, name: str) -> Sequence[int | None]:
        return _sizes(self._shapes[name])


class OvPast(Past):
    """Keys and values stay inside OpenVINO, and grow there: nothing of them is copied at a step."""

    def __init__(
        self, path: Path, threads: int, compute: Compute = "float32", cache: Path | None = None
    ) -> None:
        self._shapes: dict[str, tuple[str, Sequence[int | None]]] = {}
        self._compiled = _compiled(path, threads, compute, self._keep_inside, cache)

    def _keep_inside(self, model: Any) -> None:
        from openvino._offline_transformations import apply_make_stateful_transformation

        self.inputs = tuple(name for value in model.inputs for name in sorted(value.names))
        kept = pairs(self.inputs, [name for value in model.outputs for name in value.names])
        shapes = {name: _sizes(model.input(name).partial_shape) for name in kept}
        apply_make_stateful_transformation(model, kept)
        self._shapes = {past + present: (past, shapes[past]) for past, present in kept.items()}

    def start(self, rows: int, fixed: Mapping[str, Value]) -> "OvMemory":
        import numpy as np
        import openvino

        request = self._compiled.create_infer_request()
        for variable in request.query_state():
            name, shape = self._shapes[variable.name]
            variable.state = openvino.Tensor(np.zeros(empty_shape(shape, name, rows), dtype=np.float32))
        return OvMemory(request, dict(fixed))

    def step(self, memory: "OvMemory", feeds: Mapping[str, Value]) -> "np.ndarray":
        memory.request.infer({**feeds, **memory.fixed}, share_inputs=True, share_outputs=True)
        logits: np.ndarray = memory.request.get_tensor("logits").data.copy()
        return logits


@dataclass(frozen=True, slots=True)
class OvMemory:
    request: Any  # with its own keys and values
    fixed: dict[str, Value]


def _compiled(
    path: Path, threads: int, compute: Compute, change: Callable[[Any], None], cache: Path | None
) -> Any:
    """Raises ModelBroken where the file is not whole."""
    import openvino
    from openvino import properties

    core = openvino.Core()
    hints: dict[Any, Any] = {
        properties.inference_num_threads(): threads,
        properties.num_streams(): 1,
        properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
        properties.hint.enable_cpu_pinning(): False,
        properties.enable_mmap(): True,
    }
    if compute != "auto":
        kind = openvino.Type.bf16 if compute == "bfloat16" else openvino.Type.f32
        hints[properties.hint.inference_precision()] = kind
    if cache is not None:
        hints[properties.cache_dir()] = str(cache)
        hints[properties.cache_mode()] = "OPTIMIZE_SPEED"  # its enum of the same name is refused
    check_weights(path)

    def made() -> Any:
        model = core.read_model(path)
        change(model)
        return core.compile_model(model, "CPU", hints)

    try:
        if cache is None:
            return made()
        with _alone(cache):
            before = set(cache.iterdir())
            compiled = made()
            if set(cache.iterdir()) == before:
                return compiled
            # Compiled in this process, its weights are its own: of a MiniLM in INT8 some 50 MB more than
            # what is mapped from the file.
            del compiled
            return made()
    except Exception as error:
        raise ModelBroken(
            f"{path} is not a graph that OpenVINO can load: {_last(error)}. "
            "Are the .xml and the .bin beside it whole? Build or fetch the model anew."
        ) from error


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process at a time: OpenVINO reads what another still writes, finds it broken, and removes it."""
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sizes(shape: Any) -> list[int | None]:
    return [None if size.is_dynamic else size.get_length() for size in shape]


def check_weights(path: Path) -> None:
    """Raises ModelBroken where the weights are cut off: OpenVINO maps them, and misses nothing until it
    reads."""
    import xml.etree.ElementTree as ET

    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelBroken(f"{path} has no {weights.name} beside it. Build or fetch the model anew.")
    try:
        root = ET.parse(path).getroot()  # noqa: S314
    except ET.ParseError as error:
        raise ModelBroken(f"{path} is cut off or no XML ({error}). Build or fetch the model anew.") from error
    ends = (
        int(data.get("offset", 0)) + int(data.get("size", 0))
        for data in root.iter("data")
        if data.get("offset") is not None and data.get("size") is not None
    )
    needed, there = max(ends, default=0), weights.stat().st_size
    if there < needed:
        raise ModelBroken(
            f"{weights} is cut off: it has {there} bytes, and the graph needs {needed}. "
            "Build or fetch the model anew."
        )


def _last(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")[:300]
