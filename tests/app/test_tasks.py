"""What is taken as a request, what is said of all else, and what answers look like."""

import json
import math
from contextlib import suppress
from itertools import pairwise
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.app import tasks
from gamma_orch.app.bundle import Model, Task, Version
from gamma_orch.app.errors import Malformed, Problem, TooLarge, Unprocessable

CANARY = "CANARY-of-a-secret-text"
READS: tuple[Task, ...] = ("text-classification", "token-classification", "embeddings")
WRITES: tuple[Task, ...] = ("text-generation", "summarization")


def model(task: Task = "text-classification", **limits: Any) -> Model:
    return Model(task=task, versions=(Version(digest="0" * 64, folder="/x", files={}),), **limits)


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("task", [*READS, *WRITES])
def test_one_text_and_several(task: Task):
    assert tasks.decoded(body(inputs="a"), model(task)).texts == ["a"]
    assert tasks.decoded(body(inputs=["a", "b"]), model(task)).texts == ["a", "b"]
    odd = ["", " \t\n", "😀" * 9, "\x00\x1b\u202e", "a" * 20_000]
    assert tasks.decoded(body(inputs=odd), model(task)).texts == odd


BROKEN: list[tuple[bytes, str, str | None]] = [
    (b"", "not JSON", None),
    (b"{", "not JSON", None),
    (b'{"inputs": NaN}', "not JSON", None),
    (b'{"inputs": "a"} {}', "not JSON", None),
    (b'{"inputs": "\xff"}', "not JSON", None),
    (b'{"inputs": "\\ud800"}', "not JSON", None),
    (b"[" * 100_000, "not what", ""),
    (b"null", "not what", ""),
    (b"{}", "not what", ""),
    (body(inputs=5), "not what", "/inputs"),
    (body(inputs=None), "not what", "/inputs"),
    (body(inputs=["a", ["b"]]), "not what", "/inputs/1"),
    (body(inputs={CANARY: 1}), "not what", "/inputs"),
    (body(inputs="a", parameters=[]), "not what", "/parameters"),
    (body(inputs="a", **{CANARY: 1}), "not what", ""),
    (body(inputs="a", parameters={CANARY: CANARY}), "not what", "/parameters"),
    (body(inputs="a", parameters={"adapter": 5}), "not what", "/parameters/adapter"),
]


@pytest.mark.parametrize(("sent", "says", "at"), BROKEN)
def test_what_is_not_taken(sent: bytes, says: str, at: str | None):
    with pytest.raises(Malformed, match=says) as refused:
        tasks.decoded(sent, model())
    assert [fault["at"] for fault in refused.value.faults] == ([] if at is None else [at])
    assert "CANARY" not in refused.value.body("1").decode()


@pytest.mark.parametrize(
    ("parameters", "at"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 1.5}, "max_new_tokens"),
    ],
)
def test_parameters_have_bounds(parameters: Any, at: str):
    with pytest.raises(Malformed) as refused:
        tasks.decoded(body(inputs="a", parameters=parameters), model("text-generation"))
    assert refused.value.faults[0]["at"] == f"/parameters/{at}"
    with pytest.raises(Malformed):  # who reads has none of them
        tasks.decoded(body(inputs="a", parameters=parameters), model())


def test_limits_of_the_bundle():
    small = model("text-generation", texts=3, characters=5, new_tokens=9)
    asked = tasks.decoded(body(inputs=["a" * 5] * 3, parameters={"max_new_tokens": 9}), small)
    assert len(asked.texts) == 3
    with pytest.raises(TooLarge) as texts:
        tasks.decoded(body(inputs=[CANARY] * 4), small)
    assert texts.value.faults == (
        {"at": "/inputs", "says": "It has 4 texts, and at most 3 are taken at once."},
    )
    with pytest.raises(TooLarge) as long:
        tasks.decoded(body(inputs=["a", CANARY, "b" * 6]), small)
    assert [fault["at"] for fault in long.value.faults] == ["/inputs/1", "/inputs/2"]
    with pytest.raises(TooLarge) as one:
        tasks.decoded(body(inputs=CANARY), small)
    assert one.value.faults[0]["at"] == "/inputs"
    assert CANARY.encode() not in one.value.body("1") + long.value.body("1") + texts.value.body("1")
    with pytest.raises(Unprocessable) as new:
        tasks.decoded(body(inputs="a", parameters={"max_new_tokens": 10}), small)
    assert new.value.faults[0]["at"] == "/parameters/max_new_tokens"
    with pytest.raises(Unprocessable):
        tasks.decoded(body(inputs=[]), small)
    with pytest.raises(TooLarge):  # more than ever fits into the queue would be told to come again for ever
        tasks.decoded(body(inputs=["a"] * 3), model(texts=64, queue=2))


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.just(CANARY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just(CANARY) | st.just("seed"), inner),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries({}, optional={"inputs": _json, "parameters": _json, CANARY: _json}),
    st.sampled_from([*READS, *WRITES]),
)
def test_nothing_that_was_sent_is_in_what_is_said(sent: Any, task: Task):
    try:
        tasks.decoded(json.dumps(sent).encode(), model(task, characters=3))
    except Problem as problem:
        assert CANARY not in problem.body("1").decode()  # noqa: PT017
    else:
        assert set(sent) <= {"inputs", "parameters"}


@given(st.binary(max_size=40))
def test_any_bytes_are_a_request_or_a_problem(sent: bytes):
    for whole in (sent, b'{"inputs":"' + sent + b'"}'):
        with suppress(Problem):
            assert tasks.decoded(whole, model()).texts


def test_a_temperature_that_is_next_to_none_is_none():
    for temperature, right in ((0, 0.0), (1e-300, 0.0), (0.0099, 0.0), (0.01, 0.01), (2, 2.0)):
        asked = tasks.decoded(
            body(inputs="a", parameters={"temperature": temperature}), model("summarization")
        )
        assert isinstance(asked, tasks.WriteRequest)
        assert asked.parameters.sampling.temperature == right


# --- outputs --------------------------------------------------------------------------------------


def test_the_likeliest_label_and_all_of_them():
    likely = tasks.probabilities(np.array([[1000.0, -1000.0], [0.0, math.log(3)]], dtype=np.float32))
    assert tasks.classified(likely[0].tolist(), ("no", "yes")) == tasks.Classified(
        "no", 1.0, {"no": 1.0, "yes": 0.0}
    )
    assert tasks.classified(likely[1].tolist(), ("no", "yes")) == tasks.Classified(
        "yes", 0.75, {"no": 0.25, "yes": 0.75}
    )


TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-LOC", "S-LOC")


def found(text: str, tokens: str, labels: tuple[str, ...] = TAGS) -> list[tuple[str, str]]:
    """`tokens`: each "start-end:label"; of each entity its text and label, and its place checked."""
    spans, rows = [], []
    for token in tokens.split():
        span, _, label = token.partition(":")
        start, _, end = span.partition("-")
        spans.append((int(start), int(end)))
        rows.append([0.9 if label == one else 0.01 for one in labels])
    out = tasks.entities(text, spans, np.array(rows or np.zeros((0, len(labels)))), labels)
    assert all(text[one.start : one.end] == one.text for one in out)
    assert all(one.score == 0.9 for one in out)
    return [(one.text, one.label) for one in out]


def test_entities_of_words():
    text = "Ada Lovelace went to New York."
    frame = "0-0:B-PER"
    assert found(
        text, f"{frame} 0-3:B-PER 4-8:I-PER 8-12:O 13-17:O 18-20:O 21-24:B-LOC 25-29:I-LOC 29-30:O {frame}"
    ) == [("Ada Lovelace", "PER"), ("New York", "LOC")]
    assert found(text, "0-3:B-PER 3-12:I-PER") == [("Ada Lovelace", "PER")]  # a token with the blank before
    assert found(text, "0-3:B-PER 4-12:B-PER") == [("Ada", "PER"), ("Lovelace", "PER")]
    assert found(text, "0-3:I-PER 4-12:I-PER 13-17:I-LOC") == [("Ada Lovelace", "PER"), ("went", "LOC")]
    ends = [("Ada Lovelace", "LOC"), ("went", "LOC"), ("to", "LOC")]
    assert found(text, "0-3:B-LOC 3-12:E-LOC 12-17:E-LOC 18-20:I-LOC") == ends
    assert found(text, "0-3:S-LOC 4-8:O 8-12:S-LOC 12-17:S-LOC") == [("Ada", "LOC"), ("went", "LOC")]
    assert found(text, "0-3:O") == []
    assert found("", "") == []
    assert found("  ", "0-1:B-PER 1-2:B-PER") == []


def test_entities_without_prefixes_and_in_other_scripts():
    assert found("good bad", "0-4:fine 5-8:poor", ("fine", "poor")) == [("good", "fine"), ("bad", "poor")]
    assert found("北京大学", "0-1:B-LOC 1-2:I-LOC 2-3:O 3-4:S-LOC") == [("北京", "LOC"), ("学", "LOC")]
    assert found("😀 don't", "0-1:S-LOC 2-5:B-PER 5-6:O 6-7:O") == [("😀", "LOC"), ("don't", "PER")]
    assert found("(Paris), 3.5", "0-1:O 0-6:S-LOC 1-6:S-LOC 9-10:S-LOC") == [("Paris", "LOC"), ("3.5", "LOC")]


@given(st.text(max_size=40), st.data())
def test_entities_are_in_the_text_and_apart(text: str, data: st.DataObject):
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    spans = list(pairwise(places))
    best = data.draw(st.lists(st.integers(0, len(TAGS) - 1), min_size=len(spans), max_size=len(spans)))
    likely = np.full((len(spans), len(TAGS)), 0.01)
    likely[range(len(spans)), best] = 0.9
    out = tasks.entities(text, spans, likely, TAGS)
    assert all(one.text == text[one.start : one.end] != "" for one in out)
    assert all(one.end <= other.start for one, other in pairwise(out))


def test_who_agrees():
    def entity(label: str, score: float = 0.5) -> tasks.Entity:
        return tasks.Entity(0, 1, "a", label, score)

    same: list[tuple[tasks.Output, tasks.Output]] = [
        (tasks.Classified("a", 0.9, {}), tasks.Classified("a", 0.6, {})),
        ([entity("x")], [entity("x", 0.9)]),
        ([], []),
        ([1.0, 0.0], [2.0, 0.01]),
        ([0.0, 0.0], [0.0, 0.0]),
        (tasks.Written("a", "stop", 1), tasks.Written("a", "length", 1)),
    ]
    other: list[tuple[tasks.Output, tasks.Output]] = [
        (tasks.Classified("a", 0.9, {}), tasks.Classified("b", 0.9, {})),
        ([entity("x")], [entity("y")]),
        ([entity("x")], []),
        ([1.0, 0.0], [0.7, 0.7]),
        (tasks.Written("a", "stop", 1), tasks.Written("b", "stop", 1)),
        (tasks.Written("a", "stop", 1), [1.0]),
    ]
    assert all(tasks.agree(*pair) for pair in same)
    assert not any(tasks.agree(*pair) for pair in other)


OUTPUTS: dict[Task, list[Any]] = {
    "text-classification": [tasks.Classified("a", 1.0, {"a": 1.0})],
    "token-classification": [[tasks.Entity(0, 1, "a", "x", 0.5)], []],
    "embeddings": [[0.5, -0.5]],
    "text-generation": [tasks.Written("a", "stop", 1)],
    "summarization": [tasks.Written("a", "length", 1)],
}


@pytest.mark.parametrize("task", OUTPUTS)
def test_answers_are_what_the_schema_says(task: Task):
    schemas = tasks.components("#/$defs/{name}")
    answer = tasks.ANSWERS[task]("m", "0" * 64, OUTPUTS[task], tasks.Usage(3, 1))
    said = json.loads(tasks.encoded(answer))
    assert list(said) == ["model", "digest", "outputs", "usage"]
    assert said["usage"] == {"input_tokens": 3, "output_tokens": 1}
    kind = tasks.ANSWERS[task].__name__
    jsonschema.validate(said, {"$ref": f"#/$defs/{kind}", "$defs": schemas})


@given(_json, _json, st.sampled_from([*READS, *WRITES]))
def test_the_schema_takes_what_is_taken(inputs: Any, parameters: Any, task: Task):
    schema = {"$ref": f"#/$defs/{tasks.REQUESTS[task].__name__}", "$defs": tasks.components("#/$defs/{name}")}
    sent = {"inputs": inputs, "parameters": parameters}
    try:
        tasks.decoded(json.dumps(sent).encode(), model(task))
    except Problem:
        return
    jsonschema.validate(sent, schema)
