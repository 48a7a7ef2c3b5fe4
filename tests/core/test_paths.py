"""Paths into fields: walking them, writing and reading them, and leaving some of them alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.change import MISSING
from gamma_orch.core.compare import field_changes, left_alone, parse_path, paths
from gamma_orch.core.diagnostic import written
from gamma_orch.core.leaves import encode
from gamma_orch.core.resource import Lifecycle
from tests.core.values import keys, scalars, specs

maps = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(scalars, lambda i: st.dictionaries(st.sampled_from("abc"), i, max_size=3), max_leaves=6),
    max_size=3,
)
any_path = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple)
names = keys.filter(lambda name: '"' not in name)


def at(tree, path):
    for part in path:
        if not isinstance(tree, dict) or part not in tree:
            return MISSING
        tree = tree[part]
    return tree


@given(specs)
def test_paths_lead_to_their_values(tree) -> None:
    """Each leaf once, by the way that leads to it."""
    fields = encode({"x": tree})
    found = list(paths(fields))
    assert len({path for path, _ in found}) == len(found)
    for path, value in found:
        assert at(fields, path) is value
        assert not isinstance(value, dict) or next(iter(value)).startswith("$")


@given(maps)
def test_paths_leave_nothing_out(fields) -> None:
    """Put together again they are the fields, but for empty maps, which own nothing."""
    rebuilt: dict[str, Any] = {}
    for path, value in paths(fields):
        here = rebuilt
        for part in path[:-1]:
            here = here.setdefault(str(part), {})
        here[str(path[-1])] = value
    assert rebuilt == _without_empty_maps(fields)


def _without_empty_maps(tree):
    if not isinstance(tree, dict):
        return tree
    inner = {key: _without_empty_maps(value) for key, value in tree.items()}
    return {key: value for key, value in inner.items() if value != {}}


@given(st.lists(names, min_size=1, max_size=4).map(tuple))
def test_a_path_is_read_as_it_is_written(path) -> None:
    """Whatever the keys are, as long as they have no quotation mark."""
    assert parse_path(written(("spec", *path))) == path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("spec.settings.work_mem", ("settings", "work_mem")),
        ("settings.work_mem", ("settings", "work_mem")),
        ('settings["pg_stat.max"].x', ("settings", "pg_stat.max", "x")),
        ("spec", ()),
        ("spec.spec", ("spec",)),
    ],
)
def test_parse_path(text: str, path: tuple[Any, ...]) -> None:
    """With `spec.` in front or without."""
    assert parse_path(text) == path


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("spec", "columns", 0, "name"), "spec.columns[0].name"),
        (("a.b", "c"), '["a.b"].c'),
        (("work_mem", "max-size"), "work_mem.max-size"),
        (("spec", ""), 'spec[""]'),
        ((), ""),
    ],
)
def test_written(path: tuple[Any, ...], text: str) -> None:
    """As people write it."""
    assert written(path) == text


def ignoring(*paths: str) -> Lifecycle:
    return Lifecycle(ignore=paths)


@given(maps, maps)
def test_ignoring_nothing_changes_nothing(wanted, live) -> None:
    """Not even an empty map: providers rely on their fields being there."""
    assert left_alone(wanted, live, ignoring()) == wanted


@given(maps, maps, any_path)
def test_what_is_ignored_is_as_it_is_in_the_world(wanted, live, path) -> None:
    """At the path the world's value, if the path is there at all; everything else as wanted."""
    result = left_alone(wanted, live, ignoring(written(path)))
    own, found = _reachable(wanted, path), _reachable(live, path)
    assert at(result, path) == (at(live, path) if own and found else at(wanted, path))
    kept = {p: v for p, v in paths(wanted) if p[: len(path)] != path}
    assert {p: v for p, v in paths(result) if p[: len(path)] != path} == kept


def _reachable(tree, path) -> bool:
    """Whether no plain value stands in the way."""
    return all(
        isinstance(at(tree, path[:n]), dict) or at(tree, path[:n]) is MISSING for n in range(1, len(path))
    )


@given(maps, maps, any_path)
def test_leaving_alone_twice_is_once(wanted, live, path) -> None:
    """What the world has is taken over, and then it is wanted."""
    once = left_alone(wanted, live, ignoring(written(path)))
    assert left_alone(once, live, ignoring(written(path))) == once


@given(maps, maps, any_path)
def test_what_is_left_alone_is_no_change(wanted, live, path) -> None:
    """Nothing at or under an ignored path is ever shown."""
    shown = field_changes(left_alone(wanted, live, ignoring(written(path))), wanted, live, [path])
    assert all(field.path[: len(path)] != path for field in shown)


def test_the_input_stays_as_it_was() -> None:
    """Trees are never changed after they were built."""
    wanted = {"a": {"b": 1}, "c": 2}
    assert left_alone(wanted, {"a": {"b": 5}}, ignoring("a.b", "c")) == {"a": {"b": 5}}
    assert wanted == {"a": {"b": 1}, "c": 2}


@pytest.mark.parametrize(
    ("wanted", "live", "left"),
    [
        ({"a": {"b": 1}}, {}, {"a": {}}),
        ({}, {"a": {"b": 5}}, {"a": {"b": 5}}),
        ({}, {"a": {"c": 5}}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 5, "c": 6}}, {"a": {"b": 5, "c": 2}}),
        ({"a": {}}, {"a": {"b": None}}, {"a": {"b": None}}),
    ],
)
def test_a_path_that_is_there_on_one_side(wanted, live, left) -> None:
    """Gone where it is gone in the world, there where it is there; no empty map comes of it."""
    assert left_alone(wanted, live, ignoring("a.b")) == left


def test_ignoring_everything() -> None:
    """`spec` is all of it."""
    assert left_alone({"a": 1}, {"b": 2}, ignoring("spec")) == {"b": 2}


def test_a_plain_value_where_a_path_would_go_on() -> None:
    """A secret, or a reference to a whole map, has no inside that could be ignored."""
    secret = {"a": {"$secret": "pw", "digest": "1"}}
    assert left_alone(secret, {"a": {"b": 5}}, ignoring("a.b")) == secret
    assert left_alone({"a": {"b": 1}}, {"a": "flat"}, ignoring("a.b")) == {"a": {"b": 1}}
