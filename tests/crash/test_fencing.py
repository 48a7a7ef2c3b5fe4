"""Law 3 with two real processes: one is paused in the middle, another takes over, the first wakes.

It may still finish the effect that it was in, which is why effects have keys; it records nothing more.
"""

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from gamma_orch.store.database import Database
from gamma_orch.store.ledger import events, verify
from gamma_orch.testing.crash import LOG
from gamma_orch.testing.thing import FAULTS
from tests.cli.gamma import Warm, start, write
from tests.crash.suite import WATCHED
from tests.crash.test_interrupts import ENVIRONMENT, THINGS, done
from tests.crash.things import FILES

pytestmark = pytest.mark.crash


@pytest.fixture(params=["a file", pytest.param("a server", marks=pytest.mark.postgres)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "a file":
        return f"sqlite:///{tmp_path}/shared.db"
    return f"{request.getfixturevalue('server')}postgres"


def expire(ledger: str) -> None:
    """As if the holder had been silent for longer than a lease lasts."""
    database = Database(ledger)
    with database.transaction() as writing:
        writing.change("UPDATE environments SET expires = '2020-01-01T00:00:00.000Z'")
    database.close()


def test_an_old_token_never_appends(gamma: Warm, tmp_path: Path, ledger: str) -> None:
    project = write(tmp_path / "project", {FILES[0]: ENVIRONMENT, FILES[1]: THINGS})
    shared: Mapping[str, str] = {"GAMMA_LEDGER": ledger, "GAMMA_KEY": "shared"}
    log = tmp_path / "points"
    slow = {FAULTS: json.dumps({"slow": {"slow": 1.0}}), LOG: str(log), "GAMMA_PLUGINS": WATCHED}
    first = start(project, "apply", "--yes", GAMMA_ACTOR="first", **slow, **shared)
    try:
        while not (log.exists() and "before create Thing/slow" in log.read_text()):
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)

        held = gamma(project, "apply", "--yes", **shared)
        assert held.code == 3
        assert f"(process {first.pid}) is at work on dev" in held.err

        expire(ledger)
        second = gamma(project, "apply", "--yes", GAMMA_ACTOR="second", **shared)
        assert second.code == 0, second.err
    finally:
        first.send_signal(signal.SIGCONT)
    _, err = first.communicate(timeout=30)

    assert first.returncode == 3, err
    assert "went to" in err
    assert "nothing more is recorded" in err
    assert "Traceback" not in err
    database = Database(ledger)
    told = events(database, "dev")
    assert verify(database, "dev") == []
    database.close()
    assert [event.by for event in told] == sorted(event.by for event in told), "the first spoke again"
    assert {event.by for event in told} == {"first", "second"}
    tokens = [event.token for event in told]
    assert tokens == sorted(tokens)
    assert sorted(done(project)) == ["Thing/below", "Thing/quick", "Thing/slow"]
    assert gamma(project, "plan", **shared).code == 0
