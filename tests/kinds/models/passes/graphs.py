"""A tiny classifier and a tiny tagger as ONNX graphs made by hand, for tests of what measures models.

Each text's logits are the mean of its tokens' rows of one table, so a test can say what must come out.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from gamma_orch.runtimes.folder import Card, Task

WORDS = ("[PAD]", "[UNK]", "good", "bad", "film", "the", "was", "Anna", "Paris", "in", "lives")


def hand_made(
    folder: Path,
    table: Mapping[str, tuple[float, ...]],
    labels: tuple[str, ...],
    task: Task = "text-classification",
    wide: int = 0,
) -> Path:
    """`table`: a word's logits; a word that is not in it says nothing. `wide`: columns of a matrix that the
    graph multiplies by for nothing, to be slow and large."""
    folder.mkdir(parents=True)
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"vocab_size": len(WORDS), "pad_token_id": 0}))
    rows = np.array([table.get(word, (0.0,) * len(labels)) for word in WORDS], np.float32)
    onnx.save(_graph(rows, task, wide), folder / "model.onnx")
    Card(
        task,
        "bert",
        "onnxruntime",
        graphs={"model": "model.onnx"},
        labels=labels,
        max_length=64,
        pooling="mean",
    ).write(folder)
    return folder


def _graph(rows: np.ndarray, task: str, wide: int) -> Any:
    def value(name: str, array: np.ndarray) -> Any:
        return numpy_helper.from_array(array, name)

    given = [
        value("table", rows),
        value("axes", np.array([2], np.int64)),
        value("over", np.array([1], np.int64)),
    ]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["each"])]
    last = "each"
    if wide:
        given.append(value("out", np.zeros((rows.shape[1], wide), np.float32)))
        given.append(value("square", np.zeros((wide, wide), np.float32)))
        given.append(value("back", np.zeros((wide, rows.shape[1]), np.float32)))
        nodes += [
            helper.make_node("MatMul", ["each", "out"], ["a"]),
            helper.make_node("MatMul", ["a", "square"], ["b"]),
            helper.make_node("MatMul", ["b", "back"], ["c"]),
            helper.make_node("Add", ["each", "c"], ["d"]),
        ]
        last = "d"
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axes"], ["mask3"]),
        helper.make_node("Mul", [last, "mask3"], ["kept"]),
    ]
    shape: list[Any] = ["rows", "tokens", rows.shape[1]]
    if task == "text-classification":
        nodes += [
            helper.make_node("ReduceSum", ["kept", "over"], ["total"], keepdims=0),
            helper.make_node("ReduceSum", ["mask3", "over"], ["count"], keepdims=0),
            helper.make_node("Div", ["total", "count"], ["logits"]),
        ]
        shape = ["rows", rows.shape[1]]
    else:
        name = "last_hidden_state" if task == "embeddings" else "logits"
        nodes.append(helper.make_node("Identity", ["kept"], [name]))
    output = "last_hidden_state" if task == "embeddings" else "logits"
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "hand-made", ids, outputs, given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
