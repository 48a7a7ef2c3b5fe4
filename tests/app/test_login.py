"""Logging in: a token that the gatekeeper takes, and nothing that tells a user from a name made up."""

import asyncio
import json
from typing import Any

import bcrypt
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from gamma_orch.app import login as module
from gamma_orch.app import passwords
from gamma_orch.app.auth import Gatekeeper, Principal
from gamma_orch.app.bundle import Auth, User
from gamma_orch.app.errors import Problem, TooMany, Unauthenticated
from gamma_orch.app.login import FREE, LONGEST_WAIT, WRONG, Attempts, Login, Token

NOW = 1_800_000_000.5
SECRETS = {"tokens": "CANARY-tokens-secret-of-forty-characters"}
PASSWORD = "correct-horse-CANARY-staple"


def of_bcrypt(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


AUTH = Auth(
    users=(
        User(name="alice", hash=passwords.hashed(PASSWORD, "alice"), scopes=("predict",), tenant="red"),
        User(name="bob", hash=of_bcrypt("another-CANARY-password"), scopes=()),
    ),
    token=900,
)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def login(clock: Clock | None = None, attempts: Attempts | None = None, **fields: Any) -> Login:
    given = AUTH.model_copy(update=fields)
    return Login("shop", given, SECRETS, clock or Clock(), attempts or Attempts(Clock()))


def into(door: Login, name: str, password: str) -> Token:
    return asyncio.run(door.login(name, password))


def fails(door: Login, name: str, password: str = "wrong") -> Problem:
    with pytest.raises(Problem) as caught:
        into(door, name, password)
    return caught.value


def test_the_gatekeeper_takes_the_token_as_long_as_it_says() -> None:
    clock = Clock()
    token = into(login(clock), "alice", PASSWORD)
    assert token.seconds == 900
    keeper = Gatekeeper(AUTH, SECRETS, clock, service="shop")
    presented = b"Bearer " + token.value.encode()
    end = int(NOW) + 910
    assert keeper.who(presented, None) == Principal("alice", "red", frozenset({"predict"}), "user", end)
    clock.now = end
    with pytest.raises(Unauthenticated, match="expired"):
        keeper.who(presented, None)
    for other in (
        Gatekeeper(AUTH, SECRETS, lambda: NOW, service="other"),
        Gatekeeper(AUTH, {"tokens": "x" * 32}, lambda: NOW, service="shop"),
    ):
        with pytest.raises(Unauthenticated, match="not taken"):
            other.who(presented, None)


def test_what_a_token_says() -> None:
    door = login()
    first, second = (
        jwt.decode(into(door, "alice", PASSWORD).value, OctKey.import_key(SECRETS["tokens"]))
        for _ in range(2)
    )
    assert first.header == {"alg": "HS256", "typ": "JWT"}
    assert first.claims == {
        "iss": "gamma/shop",
        "aud": "shop",
        "sub": "alice",
        "iat": int(NOW),
        "exp": int(NOW) + 900,
        "jti": first.claims["jti"],
    }
    assert first.claims["jti"] != second.claims["jti"]


def test_a_token_of_a_login_can_be_revoked() -> None:
    token = into(login(), "alice", PASSWORD).value
    jti = jwt.decode(token, OctKey.import_key(SECRETS["tokens"])).claims["jti"]
    keeper = Gatekeeper(AUTH.model_copy(update={"revoked": (jti,)}), SECRETS, lambda: NOW, service="shop")
    with pytest.raises(Unauthenticated):
        keeper.who(b"Bearer " + token.encode(), None)


def test_a_short_life_is_a_second() -> None:
    assert into(login(token=0.2), "alice", PASSWORD).seconds == 1


def test_bcrypt_logs_in_too() -> None:
    assert into(login(), "bob", "another-CANARY-password").seconds == 900
    assert fails(login(), "bob", "another-CANARY-password" + "x" * 60).detail == WRONG


def test_an_unknown_name_is_answered_as_a_wrong_password_is() -> None:
    names = ("alice", "mallory", "", "Alice", "\ud800", "a" * 100_000, "alice\x00")
    problems = [fails(login(), name) for name in names]
    assert {json.dumps([type(one).__name__, one.detail, one.headers]) for one in problems} == {
        json.dumps(["Unauthenticated", WRONG, {"WWW-Authenticate": 'Bearer realm="gamma"'}])
    }
    assert fails(login(), "alice", "x" * 100_000).detail == WRONG


def test_the_right_password_of_one_is_not_that_of_a_name_made_up() -> None:
    for number in range(20):
        assert fails(login(), f"mallory-{number}", PASSWORD).detail == WRONG


def test_an_unknown_name_costs_a_hash_of_one_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def verify(password: str, kept: str) -> bool:
        seen.append(kept)
        return True

    monkeypatch.setattr(passwords, "verify", verify)
    for _ in range(2):
        for number in range(50):
            assert fails(login(), f"mallory-{number}").detail == WRONG  # whatever it says
    assert set(seen) == {user.hash for user in AUTH.users}
    assert seen[:50] == seen[50:]  # by name the same, in every worker


# --- the throttle ---------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def verify(password: str, kept: str) -> bool:
        await asyncio.sleep(0)
        return password == PASSWORD

    monkeypatch.setattr(passwords, "verify", verify)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["alice", "mallory"])
def test_failures_wait_twice_as_long_each_time(name: str) -> None:
    clock = Clock()
    door = login(attempts=Attempts(clock))
    for _ in range(FREE):
        assert fails(door, name).detail == WRONG
    for wait in (1, 2, 4, 8, 16, 32, LONGEST_WAIT, LONGEST_WAIT):
        problem = fails(door, name, PASSWORD)
        assert isinstance(problem, TooMany)
        assert problem.headers["Retry-After"] == str(int(wait))
        clock.now += wait - 0.01
        assert isinstance(fails(door, name, PASSWORD), TooMany)
        clock.now += 0.01
        assert fails(door, name).detail == WRONG
    clock.now += module.FORGOTTEN + 1
    for _ in range(FREE):
        assert fails(door, name).detail == WRONG


@pytest.mark.usefixtures("quick")
def test_a_success_clears_and_another_account_is_not_touched() -> None:
    door = login()
    for _ in range(3):
        for _ in range(FREE - 1):
            fails(door, "alice")
        into(door, "alice", PASSWORD)
    for _ in range(FREE + 1):
        fails(door, "alice")
    assert isinstance(fails(door, "alice"), TooMany)
    assert fails(door, "bob").detail == WRONG


@pytest.mark.usefixtures("quick")
def test_many_at_once_are_no_more_than_one_after_another() -> None:
    async def run() -> list[BaseException | Token]:
        door = login()
        return await asyncio.gather(
            *(door.login("alice", str(number)) for number in range(50)), return_exceptions=True
        )

    outcomes = asyncio.run(run())
    assert sum(isinstance(one, Unauthenticated) for one in outcomes) == FREE
    assert sum(isinstance(one, TooMany) for one in outcomes) == 50 - FREE


@pytest.mark.usefixtures("quick")
def test_made_up_names_push_no_users_failures_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNKNOWN", 10)
    attempts = Attempts(Clock())
    door = login(attempts=attempts)
    for _ in range(FREE):
        fails(door, "alice")
    for number in range(100):
        fails(door, f"mallory-{number}")
    assert isinstance(fails(door, "alice"), TooMany)
    fails(door, "m" * 100_000)
    assert len(attempts._unknown) == 10
    assert max(map(len, attempts._unknown)) < 200
    # And they outlive the bundle.
    assert isinstance(fails(login(attempts=attempts), "alice"), TooMany)


def test_a_thousand_failures_are_no_error() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(2000):
        attempts.begin("alice", known=True)
        clock.now += LONGEST_WAIT


# --- building one, and what comes out ----------------------------------------------------------------


def test_all_faults_at_once() -> None:
    broken = Auth(users=(User(name="eve", hash="$2b$CANARY", scopes=()),))
    with pytest.raises(ValueError, match="eve") as caught:
        Login("shop", broken, {"tokens": "CANARY"})
    assert str(caught.value).splitlines() == [
        "The hash of the user eve is neither argon2id nor bcrypt, or not whole.",
        "The secret `tokens` is shorter than 32 bytes.",
    ]
    with pytest.raises(ValueError, match="no users"):
        Login("shop", Auth(), SECRETS)


def test_no_canary() -> None:
    door = login()
    token = into(door, "alice", PASSWORD)
    assert token.value not in repr(token)
    assert "CANARY" not in repr(door) + repr(token)
    for name, password in (
        ("alice", "CANARY"),
        ("CANARY", "CANARY"),
        ("bob", "CANARY" * 20),
        ("bob", "CANARY\ud800"),
    ):
        problem = fails(door, name, password)
        shown = f"{problem}{problem!r}{vars(problem)}{problem.__context__!r}{problem.body('id')!r}"
        assert "CANARY" not in shown
