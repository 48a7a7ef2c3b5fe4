"""A batch is rounded up to one of few shapes where a runtime keeps something for each."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.runtimes import load_encoder
from gamma_orch.runtimes.graphs import rounded
from tests.kinds.models.built import Workshop


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


class Watched:
    """A graph that tells which shapes it was given."""

    shapes_cost = True

    def __init__(self, graph: Any) -> None:
        self._graph, self.seen = graph, list[tuple[int, ...]]()
        self.inputs, self.outputs = graph.inputs, graph.outputs

    def run(self, feeds: Any, keep: Any = ()) -> Any:
        self.seen.append(feeds["input_ids"].shape)
        assert {array.shape for array in feeds.values()} == {self.seen[-1]}
        return self._graph.run(feeds, keep)


@given(number=st.integers(1, 100_000), digits=st.integers(1, 5))
def test_a_number_is_rounded_up_and_not_far(number: int, digits: int):
    found = rounded(number, digits)
    assert number <= found < number * (1 + 2 ** (1 - digits))
    assert rounded(found, digits) == found
    assert f"{found:b}"[digits:].strip("0") == ""


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "embeddings"])
def test_answers_are_of_the_shape_that_was_asked_and_the_same(workshop: Workshop, task: Any):
    folder = workshop.model("bert", "export", task=task)
    plain, watched = load_encoder(folder), load_encoder(folder)
    graph: Any = watched
    graph._graph = Watched(graph._graph)
    random = np.random.default_rng(5)
    for rows in range(1, 18):
        for tokens in (1, 7, 9, 21, 30):
            ids = random.integers(5, 100, (rows, tokens))
            mask = np.ones_like(ids)
            mask[-1, 1:] = 0
            wanted, found = plain.run_ids(ids, mask), watched.run_ids(ids, mask)
            assert found.shape == wanted.shape
            there = mask.astype(bool) if wanted.ndim == 3 and wanted.shape[1] == tokens else ...
            np.testing.assert_allclose(found[there], wanted[there], atol=2e-5)
    assert len(set(graph._graph.seen)) <= 9 * 4
    assert all(rows in (1, 2, 3, 4, 6, 8, 12, 16, 24) for rows, _ in graph._graph.seen)


def test_no_batch_is_longer_than_the_model_can_see(workshop: Workshop):
    model: Any = load_encoder(workshop.model("bert", "export"))
    model._graph = Watched(model._graph)
    longest = model.card.max_length
    ids = np.full((1, longest - 1), 7)
    model.run_ids(ids, np.ones_like(ids))
    assert model._graph.seen == [(1, longest)]


def test_openvino_is_asked_so(workshop: Workshop):
    model: Any = load_encoder(workshop.model("bert", "export", "to_openvino"))
    assert model._graph.shapes_cost
