"""The process dies, and what it asked the server for goes on: an index build that waits for a writer.

The server notices that a client is gone only when it has something to say to it. Until then the dead
process's statement holds its locks, and builds an index that nobody asks for any more.
"""

import time
from pathlib import Path

import psycopg2
import pytest

from gamma_orch.testing.crash import AT
from tests.cli.gamma import Warm, start, write

pytestmark = [pytest.mark.crash, pytest.mark.postgres]
CRASH = "gamma_orch.testing.crash"

ENVIRONMENT = """\
apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  secrets: {server: {env: SERVER}}
  targets:
    main: {type: postgres, url: "${secret.server}"}
"""
APP = """\
apiVersion: gamma/v1
kind: Database
metadata: {name: orphan}
spec: {}
---
apiVersion: gamma/v1
kind: Table
metadata: {name: orders}
spec:
  database: orphan
  columns: {id: {type: bigint}}
"""
INDEX = """\
---
apiVersion: gamma/v1
kind: Index
metadata: {name: orders-id}
spec: {table: orders, columns: [id]}
"""
INDEXES = "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'orders'::regclass"
BUILDING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"


def test_a_build_that_outlives_its_process(gamma: Warm, tmp_path: Path, server: str) -> None:
    variables = {"SERVER": f"{server}postgres", "GAMMA_PLUGINS": ""}
    specs = {"environments/dev/environment.yaml": ENVIRONMENT, "specs/app.yaml": APP}
    project = write(tmp_path, specs)
    made = gamma(project, "apply", "--yes", **variables)
    assert made.code == 0, made.err
    write(project, {"specs/app.yaml": APP + INDEX})

    writer = psycopg2.connect(f"{server}orphan")
    watcher = psycopg2.connect(f"{server}orphan")
    watcher.autocommit = True
    with writer.cursor() as cursor, watcher.cursor() as eyes:
        cursor.execute("INSERT INTO orders VALUES (1)")  # and no commit: the build waits
        point = "during sql: CREATE INDEX"
        killed = gamma(project, "apply", "--yes", **{**variables, "GAMMA_PLUGINS": CRASH, AT: point})
        assert killed.code == -9, killed.err
        eyes.execute(BUILDING)
        assert eyes.fetchone() == (1,), "the build went with its process; this test says nothing"

        resumed = start(project, "apply", "--yes", **variables)
        time.sleep(2.5)
        assert resumed.poll() is None, resumed.communicate()
        writer.commit()
        _, err = resumed.communicate(timeout=90)
        assert resumed.returncode == 0, err
        eyes.execute(INDEXES)
        assert eyes.fetchall() == [("orders_id", True)]
    writer.close()
    watcher.close()
    assert gamma(project, "plan", **variables).code == 0
