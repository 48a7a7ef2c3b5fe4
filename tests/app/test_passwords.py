"""Passwords: judged, hashed, compared, and never in the way of the event loop."""

import asyncio
import threading
import time
from collections.abc import Iterator

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamma_orch.app import passwords
from gamma_orch.app.errors import Unavailable
from gamma_orch.app.passwords import hashed, readable, verified, verify, weak

GOOD = "correct-horse-CANARY-staple"


def of_bcrypt(password: bytes) -> str:
    return bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()


def test_a_hash_is_argon2id_as_owasp_says_and_differs_each_time() -> None:
    kept = hashed(GOOD, "alice")
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert readable(kept)
    assert verified(GOOD, kept)
    assert not verified(GOOD + " ", kept)
    assert not verified("", kept)
    assert hashed(GOOD, "alice") != kept


def test_bcrypt_is_read() -> None:
    kept = of_bcrypt(GOOD.encode())
    assert readable(kept)
    assert verified(GOOD, kept)
    assert not verified(GOOD.upper(), kept)
    assert verified("a\x00b", of_bcrypt(b"a\x00b"))
    assert not verified("a\x00c", of_bcrypt(b"a\x00b"))


def test_bcrypt_over_72_bytes_is_wrong_whatever_its_beginning() -> None:
    long = "x" * 72
    assert verified(long, of_bcrypt(long.encode()))
    assert not verified(long + "y", of_bcrypt(long.encode()))
    assert not verified("ä" * 37, of_bcrypt(("ä" * 36).encode()))


def test_the_same_letters_are_the_same_password() -> None:
    assert verified("Cafe\u0301-au-lait-vite", hashed("Caf\u00e9-au-lait-vite", "alice"))
    assert verified("half-\ud800-surrogate", hashed("half-\ud800-surrogate", "alice"))


@pytest.mark.parametrize(
    "kept",
    [
        "",
        "$argon2id$",
        "$argon2id$CANARY",
        "$2b$04$CANARY",
        "$2b$99$" + "a" * 53,
        "plain",
        "$2b$04$" + "." * 53,
    ],
)
def test_a_hash_that_is_none_is_no_passwords(kept: str) -> None:
    assert not verified(GOOD, kept)


def test_a_password_that_nobody_can_have_is_wrong() -> None:
    assert not verified("x" * 257, passwords._ARGON2.hash("x" * 257))


def test_what_is_readable() -> None:
    for kept in ("", "$argon2id$", "$argon2id$CANARY", "$2b$04$short", "$1$abc$def"):
        assert not readable(kept)


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("short", "12 characters or more"),
        ("", "12 characters or more"),
        ("elevenchars", "12 characters or more"),
        ("alice.in.wonderland", "name of the user"),
        ("Alice.In.Wonderland!2026", "name of the user"),
        ("password1234", "commonest"),
        ("P@ssw0rd!!2026", "commonest"),
        ("...Welcome2026...", "commonest"),
        ("aaaaaaaaaaaa", "repetition"),
        ("abcabcabcabca", "repetition"),
        ("kJ8$mkJ8$mkJ8$m", "repetition"),
        ("q8$Lm2wq8$Lm2w", "repetition"),
        ("123456789012", "row of letters"),
        ("abcdefghijkl", "row of letters"),
        ("POIUYTREWQ", "row of letters"),
        ("mnbvcxzlkjhg", "row of letters"),
        ("x" * 257, "256 characters or fewer"),
        ("x" * 1_000_000, "256 characters or fewer"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_weak(password: str, says: str) -> None:
    faults = weak(password, "alice.in.wonderland")
    assert any(says in fault for fault in faults), faults
    with pytest.raises(ValueError, match=r"\.$") as caught:
        hashed(password, "alice.in.wonderland")
    assert not password or len(password) < 6 or password not in str(caught.value)


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "correct horse battery",
        "sommer im garten",
        "zwölf-buchstaben-é",
        "8#19$$5-773-0",
        "x7#" * 3 + "qqqq",
    ],
)
def test_not_weak(password: str) -> None:
    assert weak(password, "alice") == []
    assert weak(password, "") == []


@given(st.text(st.characters(exclude_categories=()), max_size=300), st.text(max_size=20))
def test_any_text_is_judged_and_compared(password: str, name: str) -> None:
    weak(password, name)
    assert not verified(password, "$2b$04$" + "." * 53)


@settings(max_examples=10)
@given(st.text(st.characters(exclude_categories=()), min_size=12, max_size=80))
def test_what_is_hashed_is_verified(password: str) -> None:
    if not weak(password, "alice"):
        assert verified(password, hashed(password, "alice"))


# --- the pool -------------------------------------------------------------------------------------


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Verifications that end when it opens."""
    opened = threading.Event()

    def slow(password: str, kept: str) -> bool:
        opened.wait(10)
        return password == kept

    monkeypatch.setattr(passwords, "verified", slow)
    yield opened
    opened.set()


def test_the_loop_does_not_wait() -> None:
    kept = hashed(GOOD, "alice")

    async def run() -> tuple[bool, int]:
        ticks = 0
        task = asyncio.create_task(verify(GOOD, kept))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.001)
        return await task, ticks

    right, ticks = asyncio.run(run())
    assert right
    assert ticks > 1


def test_too_many_are_refused_rather_than_lined_up(gate: threading.Event) -> None:
    async def run() -> None:
        tasks = [asyncio.create_task(verify("a", "a")) for _ in range(passwords.WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await verify("a", "a")
        assert caught.value.headers["Retry-After"] == "1"
        assert passwords._pool._max_workers == 2
        gate.set()
        assert all(await asyncio.gather(*tasks))
        assert await verify("a", "a")

    asyncio.run(run())


def test_one_that_is_broken_off_gives_its_place_back(gate: threading.Event) -> None:
    async def run() -> None:
        tasks = [asyncio.create_task(verify("a", "a")) for _ in range(passwords.WAITING)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert passwords._waiting == 0
        gate.set()
        assert await verify("a", "a")

    asyncio.run(run())


def test_the_cost_is_that_of_a_hash_whatever_is_wrong() -> None:
    """Against guessing by time. Rough on purpose: the machine is shared."""
    kept = of_bcrypt(GOOD.encode())

    def cost(password: str, kept: str) -> float:
        times = []
        for _ in range(5):
            begun = time.thread_time()
            verified(password, kept)
            times.append(time.thread_time() - begun)
        return min(times)

    argon2 = hashed(GOOD, "alice")
    assert cost("wrong", argon2) > 0.3 * cost(GOOD, argon2)
    assert cost("x" * 100, kept) > 0.3 * cost(GOOD, kept)
