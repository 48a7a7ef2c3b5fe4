"""The folder of a service: what is current, what is kept for a return, and who may read it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.app import passwords
from gamma_orch.app.bundle import Auth, Bundle, Process, Secrets, User
from gamma_orch.app.on_ray import seat
from gamma_orch.core.leaves import encode
from gamma_orch.kinds.serving.house import KEPT, House
from tests.kinds.serving.specs import AUTH, fields, service

PASSWORD = "correct horse battery staple"


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "service-api")


def bundle(number: int = 0, **more: Any) -> Bundle:
    return Bundle(service="api", process=Process(port=8000 + number), **more)


def store(house: House, number: int) -> str:
    """A bundle that is younger than those with a smaller number."""
    one = bundle(number)
    house.store(one, Secrets(), {})
    for path in (house.folder / "bundles").glob(f"{one.digest}.*"):
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    return one.digest


def kept(house: House) -> set[str]:
    return {path.name.partition(".")[0] for path in (house.folder / "bundles").iterdir()}


def test_what_was_stored_is_read_again(house: House):
    one, given = bundle(), fields(service(auth=AUTH))
    house.store(one, Secrets(values={"cache": "redis://x"}), given)
    assert house.bundle(one.digest) == one
    assert house.fields(one.digest) == encode(dict(given))
    secrets = house.folder / "bundles" / f"{one.digest}.secrets.json"
    assert Secrets.model_validate_json(secrets.read_bytes()).values == {"cache": "redis://x"}


def test_it_is_there_when_something_is_current(house: House):
    digest = store(house, 0)
    assert (house.current(), house.exists) == ("", False)
    house.settle(digest)
    assert (house.current(), house.exists) == (digest, True)


@pytest.fixture
def careless() -> Iterator[None]:
    """An account that lets everybody read what it writes."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless")
def test_only_its_owner_can_read_it(house: House):
    house.store(bundle(), Secrets(values={"cache": "redis://x"}), {})
    house.settle(bundle().digest)
    house.secret("tokens")
    modes = {path.stat().st_mode & 0o777 for path in house.folder.rglob("*") if path.is_file()}
    folders = [house.folder, *(path for path in house.folder.rglob("*") if path.is_dir())]
    assert modes == {0o600}
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


@pytest.mark.usefixtures("careless")
def test_a_secret_of_its_own_makes_a_closed_folder_too(house: House):
    house.secret("tokens")
    assert house.folder.stat().st_mode & 0o777 == 0o700


def test_the_current_one_and_the_last_few_are_kept(house: House):
    digests = [store(house, number) for number in range(KEPT + 3)]
    house.settle(digests[-1])
    house.settle(digests[-1])  # it was current before, too
    assert kept(house) == {*digests[-KEPT - 1 :]}


def test_the_current_one_is_kept_however_old(house: House):
    digests = [store(house, number) for number in range(KEPT + 3)]
    house.settle(digests[0])
    assert kept(house) == {digests[0], *digests[-KEPT:]}


def test_the_one_before_is_kept_for_a_return_however_old(house: House):
    """Rollouts that failed leave bundles too, and they are all younger than the one that runs."""
    first = store(house, 0)
    house.settle(first)
    failed = [store(house, number) for number in range(1, KEPT + 3)]
    house.settle(failed[-1])
    assert first in kept(house)
    assert house.bundle(first).digest == first
    house.settle(first)
    assert house.current() == first


def test_a_bundle_that_was_written_in_part_goes_too(house: House):
    digests = [store(house, number) for number in range(KEPT + 2)]
    (house.folder / "bundles" / f"{digests[0]}.fields.json").unlink()
    house.settle(digests[-1])
    assert digests[0] not in kept(house)
    assert not list((house.folder / "bundles").glob("*.draft"))


def test_a_secret_of_its_own_is_made_once(house: House):
    first = house.secret("tokens")
    assert house.secret("tokens") == first
    assert house.secret("columns") != first
    assert len(first) == 44


def test_what_it_makes_up_is_a_key_for_columns(house: House):
    from gamma_orch.app.columns import Columns

    columns = Columns(house.secret("columns"))
    assert columns.open(columns.seal("text")) == "text"


def current_with(house: House, **hashes: str) -> None:
    users = tuple(User(name=name, hash=kept, scopes=()) for name, kept in hashes.items())
    one = bundle(auth=Auth(users=users), secrets={"tokens": "x"})
    house.store(one, Secrets(), {})
    house.settle(one.digest)


def test_a_hash_is_kept_while_the_password_is_the_same(house: House):
    first = house.hashed("anna", PASSWORD)
    assert house.hashed("anna", PASSWORD) != first, "there is nothing to keep it in yet"
    current_with(house, anna=first)
    assert house.hashed("anna", PASSWORD) == first
    other = house.hashed("anna", "another horse battery")
    assert passwords.verified("another horse battery", other)
    assert not passwords.verified(PASSWORD, other)


def test_two_users_with_one_password_have_hashes_of_their_own(house: House):
    current_with(house, anna=house.hashed("anna", PASSWORD))
    assert house.hashed("otto", PASSWORD) != house.hashed("anna", PASSWORD)


def test_a_weak_password_is_refused(house: House):
    with pytest.raises(ValueError, match="12 characters or more"):
        house.hashed("anna", "short")


@pytest.mark.parametrize("broken", ["{", None])
def test_a_current_bundle_that_cannot_be_read_does_not_keep_another_from_being_made(
    house: House, broken: str | None
):
    current_with(house, anna=house.hashed("anna", PASSWORD))
    path = house.folder / "bundles" / f"{house.current()}.json"
    path.unlink()
    if broken is not None:
        path.write_text(broken)
    assert passwords.verified(PASSWORD, house.hashed("anna", PASSWORD))


def test_destroyed_is_gone_but_for_what_texts_are_sealed_with(house: House):
    house.settle(store(house, 0))
    sealed, _ = house.secret("columns"), house.secret("tokens")
    house.destroy()
    house.destroy()
    assert [path.name for path in house.folder.iterdir()] == ["columns.secret"]
    assert not house.exists
    assert house.secret("columns") == sealed
    House(house.folder.parent / "never").destroy()


def test_what_was_compiled_of_a_model_goes_with_the_last_bundle_that_names_it(house: House):
    named, other = "a" * 64, "b" * 64
    for digest in (named, other):
        (house.folder / "compiled" / digest).mkdir(parents=True)
        (house.folder / "compiled" / digest / "one.blob").touch()
    first = store(house, 0)
    path = house.folder / "bundles" / f"{first}.json"
    path.write_text(path.read_text() + named)
    house.settle(first)
    assert [one.name for one in (house.folder / "compiled").iterdir()] == [named]


def test_where_ray_has_it_is_for_its_owners_eyes_alone(house: House):
    assert house.clusters() == []
    place = {"url": "http://anna:secret@head:8265", "name": "gamma-dev-api"}
    house.remember([place])
    assert house.clusters() == [place]
    assert (house.folder / "clusters").stat().st_mode & 0o777 == 0o600


def test_a_replica_that_was_killed_has_no_seat(house: House):
    for folder in ("ray", "slots"):
        (house.folder / folder).mkdir(parents=True)
    for number in (10_001, 10_002):
        (house.folder / "ray" / f"r{number}.json").write_text(json.dumps({"slot": number}))
    (house.folder / "ray" / "broken.json").write_text("{")
    lock, held = seat(house.folder)
    (house.folder / "slots" / "10002.lock").touch()
    assert house.told().keys() == {"r10001", "r10002"}
    assert house.seats() == [lock]
    held.close()
    assert house.seats() == []
