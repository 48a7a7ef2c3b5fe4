"""Who may append: one holder, a token that only grows, and nobody waits for the dead."""

import multiprocessing
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from gamma_orch.store import lease as leases
from gamma_orch.store.database import Database
from gamma_orch.store.errors import LeaseHeld, LeaseLost

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> Callable[[], datetime]:
    return lambda: START + timedelta(seconds=seconds)


def test_one_at_a_time(database: Database) -> None:
    leases.acquire(database, "dev", "apply", at(0))
    with pytest.raises(LeaseHeld) as refused:
        leases.acquire(database, "dev", "apply", at(leases.SECONDS - 1))
    text = str(refused.value)
    assert f"process {os.getpid()}" in text
    assert "apply" in text
    assert "2026-01-01T12:00:30" in text
    leases.acquire(database, "prod", "apply", at(0))  # another environment is another matter


def test_an_expired_lease_is_taken_over_with_a_newer_token(database: Database) -> None:
    first = leases.acquire(database, "dev", "test", at(0))
    second = leases.acquire(database, "dev", "test", at(leases.SECONDS + 1))
    assert second.token > first.token
    with pytest.raises(LeaseLost):
        leases.renew(database, first, at(leases.SECONDS + 2))


def test_renewing_puts_the_end_off(database: Database) -> None:
    lease = leases.acquire(database, "dev", "test", at(0))
    leases.renew(database, lease, at(20))
    with pytest.raises(LeaseHeld):
        leases.acquire(database, "dev", "test", at(45))
    leases.acquire(database, "dev", "test", at(51))


def test_a_released_lease_is_free_and_the_token_still_grows(database: Database) -> None:
    first = leases.acquire(database, "dev", "test", at(0))
    leases.release(database, first)
    assert leases.acquire(database, "dev", "test", at(1)).token == first.token + 1


def test_releasing_late_does_not_free_somebody_elses(database: Database) -> None:
    first = leases.acquire(database, "dev", "test", at(0))
    leases.acquire(database, "dev", "test", at(leases.SECONDS + 1))
    leases.release(database, first)
    with pytest.raises(LeaseHeld):
        leases.acquire(database, "dev", "test", at(leases.SECONDS + 2))


def _take(url: str, answers: "multiprocessing.SimpleQueue[str]") -> None:
    database = Database(url)
    try:
        leases.acquire(database, "dev", "child", at(0))
        answers.put("taken")
    except LeaseHeld:
        answers.put("held")
    finally:
        database.close()


def test_a_dead_holder_of_this_machine_is_not_waited_for(database: Database) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    child = context.Process(target=_take, args=(database.url, answers))
    child.start()
    assert answers.get() == "taken"
    child.join()
    assert leases.acquire(database, "dev", "test", at(1)).token == 2


def test_two_processes_at_once_get_one_lease(database: Database) -> None:
    leases.release(database, leases.acquire(database, "dev", "make the tables", at(0)))
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    # The winner must still live while the other asks, so it is this process that holds the door.
    children = [context.Process(target=_take_and_wait, args=(database.url, answers)) for _ in range(3)]
    for child in children:
        child.start()
    said = sorted(answers.get() for _ in children)
    for child in children:
        child.kill()
        child.join()
    assert said == ["held", "held", "taken"]


def _take_and_wait(url: str, answers: "multiprocessing.SimpleQueue[str]") -> None:
    import time

    _take(url, answers)
    time.sleep(60)


def test_moments_order_as_their_texts() -> None:
    moments = [START + timedelta(milliseconds=n) for n in (0, 1, 999, 1000, 60_000)]
    texts = [leases.rfc3339(moment) for moment in moments]
    assert texts == sorted(texts)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text) for text in texts)
