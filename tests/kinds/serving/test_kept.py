"""Policies as files: written, seen, removed, and never taken for absent where they cannot be read."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, Opcode, Task, Temporary
from gamma_orch.kinds.serving.cache_policy import CachePolicyProvider
from gamma_orch.kinds.serving.kept import Kept
from gamma_orch.targets import Targets

A, B = Address("CachePolicy", "a"), Address("CachePolicy", "b.json")


def targets(root: Path, environment: str = "dev") -> Targets:
    return Targets(environment, root, {}, lambda tree: tree)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(targets(tmp_path), "CachePolicy")


def task(address: Address, **fields: Any) -> Task:
    return Task("k", Opcode.CREATE, address, fields, None, None, lambda tree: tree)


def look(kept: Kept, *addresses: Address) -> Mapping[Address, Observation]:
    return kept.observe([Asked(address, None, None) for address in addresses])


def file(root: Path, address: Address = A) -> Path:
    return root / "dev" / "policies" / f"CachePolicy__{address.name}.json"


def test_what_was_written_is_seen(kept: Kept):
    assert look(kept, A) == {A: ABSENT}
    kept.write(task(A, ttl="5m"))
    kept.write(task(B, ttl="6m"))
    assert look(kept, A, B) == {A: Seen({"ttl": "5m"}), B: Seen({"ttl": "6m"})}
    kept.write(task(A, ttl="7m"))
    assert look(kept, A)[A] == Seen({"ttl": "7m"})


def test_what_was_not_asked_for_is_told_too(kept: Kept):
    kept.write(task(A))
    kept.write(task(B))
    assert look(kept) == {A: Seen({}), B: Seen({})}


def test_kinds_and_environments_are_apart(kept: Kept, tmp_path: Path):
    kept.write(task(A, ttl="5m"))
    assert Kept(targets(tmp_path), "ScalingPolicy").observe([]) == {}
    assert Kept(targets(tmp_path, "prod"), "CachePolicy").observe([]) == {}


def test_removing_it_twice_is_removing_it_once(kept: Kept):
    kept.write(task(A))
    kept.remove(task(A))
    kept.remove(task(A))
    assert look(kept, A) == {A: ABSENT}


@pytest.mark.parametrize("text", ["{", "", "[]", "null", '"a"', "\udcff"])
def test_what_cannot_be_read_is_not_absent(kept: Kept, tmp_path: Path, text: str):
    kept.write(task(A))
    kept.write(task(B))
    file(tmp_path).write_bytes(text.encode("utf-8", "surrogateescape"))
    found = look(kept, A, B)
    broken = found[A]
    assert isinstance(broken, Unreadable)
    assert broken.error.endswith("Delete it to have it written anew.")
    assert found[B] == Seen({})


def test_a_folder_in_its_place_is_not_absent_either(kept: Kept, tmp_path: Path):
    file(tmp_path).mkdir(parents=True)
    assert isinstance(look(kept, A)[A], Unreadable)
    for act in (kept.write, kept.remove):
        with pytest.raises(Temporary, match=r"CachePolicy__a\.json cannot be"):
            act(task(A))


def test_a_write_that_fails_leaves_what_was_there(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept.write(task(A, ttl="5m"))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Temporary, match="No space left on device"):
        kept.write(task(A, ttl="6m"))
    assert look(kept, A)[A] == Seen({"ttl": "5m"})
    assert [path.name for path in file(tmp_path).parent.iterdir()] == ["CachePolicy__a.json"]


def test_it_is_its_owners(kept: Kept, tmp_path: Path):
    kept.write(task(A))
    assert file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert file(tmp_path).parent.stat().st_mode & 0o777 == 0o700


def test_the_provider_keeps_them(tmp_path: Path):
    provider = CachePolicyProvider(targets(tmp_path))

    async def life() -> list[Observation]:
        found = []
        for act in (provider.apply, provider.delete):
            await act(task(A, ttl="5m"))
            found.append((await provider.observe([Asked(A, None, None)]))[A])
        return found

    assert asyncio.run(life()) == [Seen({"ttl": "5m"}), ABSENT]
