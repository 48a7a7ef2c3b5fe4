"""Embedding tables: once where the output layer is tied to them, and looked up in blocks of 8 bits."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gamma_orch.kinds.models.passes import tables, weights
from gamma_orch.runtimes import load_generator
from tests.kinds.models.built import Workshop
from tests.kinds.models.tiny import DECODERS, ENCODER_DECODERS, Kind

ROWS, WIDTH = 40, 32


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


def small(tied: bool, width: int = WIDTH) -> onnx.ModelProto:
    """ids -> a row of the table -> times the output layer."""
    random = np.random.default_rng(3)
    table = random.normal(size=(ROWS, width)).astype(np.float32)
    last = table.T.copy() if tied else random.normal(size=(width, ROWS)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["row"], "lookup"),
            helper.make_node("MatMul", ["row", "last"], ["logits"], "output"),
        ],
        "small",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "tokens", ROWS])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(last, "last")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(model: onnx.ModelProto) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"ids": np.arange(ROWS, dtype=np.int64).reshape(4, 10)})[0]
    return found


def test_a_tied_output_layer_turns_the_table_and_answers_the_same():
    model = small(tied=True)
    before, size = answers(model), model.ByteSize()
    assert tables.once(model) == 1
    onnx.checker.check_model(model)
    assert model.ByteSize() < size - 4 * ROWS * WIDTH + 400
    assert np.array_equal(answers(model), before)
    back = weights.prepared(model)
    assert {tensor.name for tensor in back.graph.initializer} >= {"table", "last/turned"}
    assert np.array_equal(answers(back), before)


def test_an_output_layer_of_its_own_stays():
    model = small(tied=False)
    same = model.SerializeToString()
    assert tables.once(model) == 0
    assert model.SerializeToString() == same


@pytest.mark.parametrize("width", [WIDTH, 24])
def test_a_lookup_in_blocks_is_off_by_half_a_step_at_most(width: int):
    model = small(tied=False, width=width)
    [table] = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "table"]
    del model.graph.node[1:]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("row", TensorProto.FLOAT, [4, 10, width]))
    tables.in_blocks(model, {}, 16)
    onnx.checker.check_model(model)
    assert not [t for t in model.graph.initializer if t.name == "table"]
    rows = answers(model).reshape(ROWS, width)
    block = 16 if width % 16 == 0 else width
    steps = np.abs(table.reshape(ROWS, -1, block)).max(axis=-1, keepdims=True) / 127
    off = np.abs((rows - table).reshape(ROWS, -1, block))
    assert (off <= steps / 2 + 1e-6).all()
    assert off.max() > 0


def test_a_row_of_zeros_stays_zero():
    model = small(tied=False)
    table = numpy_helper.to_array(model.graph.initializer[0]).copy()
    table[7] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    tables.in_blocks(model, {}, 16)
    assert not answers(model).reshape(ROWS, ROWS)[7].any()


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODER_DECODERS])
def test_tied_tables_are_there_once(workshop: Workshop, kind: Kind):
    """In float32, and in 8 bits, where the lookup reads the blocks that the output layer multiplies by."""
    exported = workshop.model(kind, "export")
    quantized = workshop.model(kind, "export", ("quantize_weights", {"bits": 8}))
    role = "decoder" if kind in ENCODER_DECODERS else "model"
    graph = onnx.load(exported / f"{role}.onnx")
    vocabulary = load_generator(exported).marks.vocabulary
    wide = [t for t in graph.graph.initializer if sorted(t.dims)[-2:] == [32, vocabulary]]
    assert len(wide) == 1
    small_one = onnx.load(quantized / f"{role}.onnx")
    wide = [t for t in small_one.graph.initializer if len(t.dims) == 3 and t.dims[0] == vocabulary]
    assert len(wide) == 1
    assert load_generator(quantized).generate_ids([[5, 6, 7]], 4)
