"""The world file: a fold of whole lines, one effect a key, shared by several processes."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gamma_orch.testing.world import Conflict, World, WorldBroken, seed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dev" / "world.jsonl"


def test_no_file_is_an_empty_world(path: Path) -> None:
    assert World(path).things == {}
    assert World(path).effects == 0


def test_the_state_is_the_fold_of_the_log(path: Path) -> None:
    world = World(path)
    assert world.effect("create", "a", {"value": "x"}, key="k1")
    assert world.effect("update", "a", {"value": "y"}, {"secret": "5e1f"}, key="k2")
    assert world.effect("create", "b", {}, key="k3")
    assert world.effect("delete", "b", {}, key="k4")
    for reader in (world, World(path)):
        assert reader.things == {
            "a": {"id": "a#1", "fields": {"value": "y"}, "secrets": {"secret": "5e1f"}, "marked": True}
        }
        assert reader.effects == 4


def test_a_key_has_one_effect(path: Path) -> None:
    assert World(path).effect("create", "a", {"value": "x"}, key="k")
    assert not World(path).effect("create", "a", {"value": "y"}, key="k")
    assert World(path).things["a"]["fields"] == {"value": "x"}
    assert World(path).effects == 1


def test_without_a_key_it_is_somebody_else(path: Path) -> None:
    world = World(path)
    world.effect("create", "a", {})
    assert not world.things["a"]["marked"]
    assert world.effect("update", "a", {"n": 1})
    assert world.effect("update", "a", {"n": 1})
    assert world.effects == 3
    world.effect("update", "a", {}, key="k")
    world.effect("update", "a", {})
    assert world.things["a"]["marked"]


def test_the_id_tells_how_often_it_was_made(path: Path) -> None:
    world = World(path)
    ids = []
    for op in ("create", "update", "replace", "delete", "create", "delete", "create"):
        world.effect(op, "a", {})
        ids.append(world.things.get("a", {}).get("id"))
    assert ids == ["a#1", "a#1", "a#2", None, "a#3", None, "a#4"]


def test_an_effect_has_to_fit(path: Path) -> None:
    world = World(path)
    with pytest.raises(Conflict, match="does not exist"):
        world.effect("update", "a", {})
    assert not world.effect("delete", "a", {})
    world.effect("create", "a", {})
    with pytest.raises(Conflict, match="exists already"):
        world.effect("create", "a", {})
    assert world.effects == 1


def test_reading_goes_on_where_it_stopped(path: Path) -> None:
    writer, reader = World(path), World(path)
    writer.effect("create", "a", {})
    assert set(reader.things) == {"a"}
    line = len(path.read_bytes())
    # What was read is not read again: another text of the same length changes nothing.
    path.write_bytes(b"x" * (line - 1) + b"\n")
    assert set(reader.things) == {"a"}


def test_a_world_that_was_put_in_its_place_is_read_anew(path: Path) -> None:
    reader = World(path)
    reader.effect("create", "a", {"value": "a long text, so that the next world is shorter"})
    path.unlink()
    assert reader.things == {}
    World(path).effect("create", "b", {})
    assert set(reader.things) == {"b"}


@pytest.mark.parametrize("torn", [b"{", b'{"key":"k2","op":"delete","address":"Thing/a"', b"\xff\xfe"])
def test_a_torn_line_does_not_count(path: Path, torn: bytes) -> None:
    World(path).effect("create", "a", {}, key="k1")
    with path.open("ab") as file:
        file.write(torn)
    reader = World(path)
    assert set(reader.things) == {"a"}
    assert World(path).effect("create", "b", {}, key="k2")
    assert set(reader.things) == {"a", "b"}
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b'{"op":"delete","address":"Thing/a","key":""}\n'])
def test_a_whole_line_that_is_no_effect_is_an_error(path: Path, line: bytes) -> None:
    World(path).effect("create", "b", {})
    with path.open("ab") as file:
        file.write(line)
    world = World(path)
    for _ in range(2):
        with pytest.raises(WorldBroken, match="no effect"):
            _ = world.things


def test_a_file_that_cannot_be_read_is_no_empty_world(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(WorldBroken, match="cannot be"):
        _ = World(path).things
    with pytest.raises(WorldBroken, match="cannot be opened"):
        World(path).effect("create", "a", {})


def test_two_writers_never_write_one_effect_twice(path: Path) -> None:
    def write(worker: int) -> int:
        world = World(path)
        return sum(world.effect("create", f"t{n}", {"by": worker}, key=f"k{n}") for n in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) == 50
    assert len(World(path).things) == 50
    assert World(path).effects == 50


def test_a_seeded_world_is_as_if_it_had_been_applied(path: Path) -> None:
    seed(path, {"a": {"value": "x"}, "b": {"value": "y"}})
    world = World(path)
    assert world.things["a"] == {"id": "a#1", "fields": {"value": "x"}, "secrets": {}, "marked": True}
    world.effect("delete", "b", {})
    world.effect("create", "b", {})
    assert World(path).things["b"]["id"] == "b#2"
