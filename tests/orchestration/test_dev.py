"""`gamma dev` on a real PostgreSQL, as an operator uses it: the pages in a browser, a change made outside
that heals, a commit that partly fails, a run's process killed in the middle.

One test, because one Dagster serves for all of it, and each part goes on where the one before has
stopped. Screenshots are left in the folder that GAMMA_SCREENSHOTS names.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from gamma_orch.engine.doors import ledger_url
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import verify
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
from tests.cli.gamma import environ, folder
from tests.orchestration.projects import commit
from tests.orchestration.test_telling import Listener

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT = 180.0
NOTES = """\
apiVersion: gamma/v1
kind: Table
metadata: {name: notes}
spec:
  database: app
  schema: app
  columns: {id: {type: bigint}, text: {type: text}}
  primaryKey: [id]
---
apiVersion: gamma/v1
kind: Index
metadata: {name: notes-text}
spec: {table: notes, columns: [text]}
---
apiVersion: gamma/v1
kind: Index
metadata: {name: notes-nothing}
spec: {table: notes, columns: [nothing]}
"""


@dataclass
class Dev:
    """A running `gamma dev`."""

    root: Path
    url: str
    listener: Listener

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        asked = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]

    def runs(self) -> list[dict[str, Any]]:
        """Newest first."""
        found = self.ask(
            "{ runsOrError(limit: 20) { ... on Runs { results "
            "{ runId status jobName tags { key value } assetSelection { path } } } } }"
        )
        runs: list[dict[str, Any]] = found["runsOrError"]["results"]
        return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in runs]

    def run(self, run_id: str) -> dict[str, Any]:
        return next(run for run in self.runs() if run["runId"] == run_id)

    def ended(self, run_id: str) -> str:
        until(lambda: self.run(run_id)["status"] in ("SUCCESS", "FAILURE", "CANCELED"), f"end of {run_id}")
        return str(self.run(run_id)["status"])

    def next_run(self, known: set[str], cause: str) -> str:
        """The id of a run that was not there before."""

        def fresh() -> list[str]:
            return [
                r["runId"]
                for r in self.runs()
                if r["runId"] not in known and r["tags"].get("gamma/cause") == cause
            ]

        until(lambda: bool(fresh()), f"a run because of {cause}")
        return fresh()[0]

    def launch(self, job: str, *names: tuple[str, str], config: dict[str, Any] | None = None) -> str:
        selector = {
            "repositoryLocationName": "dev",
            "repositoryName": "__repository__",
            "pipelineName": job,
            "assetSelection": [{"path": ["dev", kind, name]} for kind, name in names] or None,
        }
        found = self.ask(
            """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
            ... on RunConfigValidationInvalid { errors { message } } } }""",
            params={"selector": selector, "runConfigData": json.dumps(config or {}), "mode": "default"},
        )["launchRun"]
        assert found["__typename"] == "LaunchRunSuccess", found
        return str(found["run"]["runId"])

    def events(self, run_id: str) -> list[dict[str, Any]]:
        found = self.ask(
            """query ($id: ID!) { logsForRun(runId: $id, limit: 1000) { ... on EventConnection { events {
            __typename ... on MessageEvent { message stepKey level }
            ... on ExecutionStepFailureEvent { error { message } failureMetadata { description } }
            ... on MaterializationEvent { assetKey { path } metadataEntries { label
              ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr } } } } } } }""",
            id=run_id,
        )
        return list(found["logsForRun"]["events"])

    def steps(self, run_id: str) -> list[str]:
        """What the run's page shows."""
        found = self.ask(
            "query ($id: ID!) { runOrError(runId: $id) { ... on Run { executionPlan { steps { key } } } } }",
            id=run_id,
        )
        return sorted(step["key"] for step in found["runOrError"]["executionPlan"]["steps"])

    def check(self, kind: str, name: str) -> dict[str, Any]:
        """The newest verdict of `in_sync`."""
        found = self.ask(
            """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
            assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization
            { status evaluation { success metadataEntries { label ... on TextMetadataEntry { text } } } }
            } } } } } }""",
            key={"path": ["dev", kind, name]},
        )
        checks = found["assetNodeOrError"]["assetChecksOrError"]["checks"]
        return dict(next(one for one in checks if one["name"] == "in_sync"))

    def sql(self, *statements: str) -> list[Any]:
        connection = self.connect()
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def connect(self) -> Any:
        home = self.root / ".gamma" / "dev" / "postgres-main"
        server = EmbeddedPostgres(home).server()
        return psycopg2.connect(
            host="127.0.0.1",
            port=server.port,
            user="gamma",
            password=(home / "password").read_text().strip(),
            dbname="app",
        )

    def columns(self, table: str) -> dict[str, str]:
        rows = self.sql(
            "SELECT column_name, is_nullable FROM information_schema.columns "
            f"WHERE table_schema = 'app' AND table_name = '{table}'"
        )
        return dict(rows)

    def indexes(self) -> set[str]:
        return {name for (name,) in self.sql("SELECT indexname FROM pg_indexes WHERE schemaname = 'app'")}


def until(true: Callable[[], bool], what: str, seconds: float = WAIT) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.5)
    pytest.fail(f"{what}: not within {seconds:.0f} s")


def gamma(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gamma_orch.cli import main; main()", *arguments]
    return subprocess.run(
        command, cwd=root, env=environ(GAMMA_PLUGINS=""), capture_output=True, text=True, check=False
    )


@pytest.fixture
def dev() -> Iterator[Dev]:
    listener = Listener()
    with folder() as home:
        root = home / "project"
        root.mkdir()
        # Without its models, the API that serves them, and what watches it: they take minutes, and have tests
        # of their own.
        left_out = shutil.ignore_patterns("__pycache__", "models", "models.yaml", "monitoring", "serving")
        for name in ("specs", "environments", "pipelines"):
            shutil.copytree(ROOT / name, root / name, ignore=left_out)
        for other in ("staging", "prod"):
            shutil.rmtree(root / "environments" / other)
        settings = root / "environments" / "dev" / "environment.yaml"
        text = re.sub(
            r"(?m)^  reconcile:\n(    .*\n)+",
            f"  reconcile: {{observe: 5s, notify: {listener.url}/failed}}\n",
            settings.read_text(),
        )
        assert listener.url in text
        settings.write_text(text)
        commit(root, "the reference project")
        done = gamma(root, "up", "-e", "dev")
        assert done.returncode == 0, done.stderr
        command = [sys.executable, "-c", "from gamma_orch.cli import main; main()", "dev"]
        process = subprocess.Popen(
            command, cwd=root, env=environ(GAMMA_PLUGINS=""), stderr=subprocess.PIPE, text=True
        )
        try:
            yield Dev(root, _address(process), listener)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
            gamma(root, "down", "-e", "dev", "--data", "--yes")
            listener.close()
        log = (root / ".gamma" / "dagster" / "dagster.log").read_text(errors="replace")
        assert process.returncode == 0
        assert not _left_over(root), "everything that it started has ended"
        assert not [line for line in log.splitlines() if "Warning" in line]


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"Dagster runs at (\S+)", line):
            return found[1]
    pytest.fail("gamma dev ended before it had an address")


def _left_over(root: Path) -> list[str]:
    """Command lines of processes that still work in the project."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(root) in line and "dagster" in line:
                found.append(line)
    return found


def materialized(events: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """`Kind/name` -> its metadata, of a run's materializations."""
    return {
        "/".join(event["assetKey"]["path"][1:]): {
            entry["label"]: entry.get("text") or entry.get("mdStr") or ""
            for entry in event["metadataEntries"]
        }
        for event in events
        if event["__typename"] == "MaterializationEvent"
    }


def _verdict(dev: Dev, kind: str, name: str) -> bool | None:
    """Of the check `in_sync`; None while the newest materialization has none yet."""
    found = dev.check(kind, name)["executionForLatestMaterialization"]
    evaluation = found and found["evaluation"]
    return bool(evaluation["success"]) if evaluation else None


def a_run_launched_by_hand(dev: Dev) -> None:
    """Launch it, follow it to its end, read what it says of each resource."""
    run = dev.launch("reconcile")
    assert dev.ended(run) == "SUCCESS"
    told = materialized(dev.events(run))
    assert len(told) == 20
    assert told["Table/accounts"]["action"] == "keep"
    steps = {event["stepKey"] for event in dev.events(run) if event.get("stepKey")}
    assert {"Table__accounts", "Role__api"} <= steps


def a_change_made_outside_is_shown_and_heals(dev: Dev) -> None:
    known = {run["runId"] for run in dev.runs()}
    dev.sql("DROP INDEX app.request_log_failures", "ALTER TABLE app.accounts ALTER email DROP NOT NULL")
    run = dev.next_run(known, "drift")
    assert {"/".join(asset["path"][1:]) for asset in dev.run(run)["assetSelection"]} == {
        "Index/request-log-failures",
        "Table/accounts",
    }
    assert dev.ended(run) == "SUCCESS"
    assert dev.steps(run) == ["Index__request_log_failures", "Table__accounts"]
    told = materialized(dev.events(run))
    assert told["Index/request-log-failures"]["reason"] == "deleted outside"
    assert told["Table/accounts"]["reason"] == "drifted"
    assert "columns.email.nullable: true -> false" in told["Table/accounts"]["change"]
    assert "request_log_failures" in dev.indexes()
    assert dev.columns("accounts")["email"] == "NO"
    until(lambda: _verdict(dev, "Table", "accounts") is True, "the verdict that it is in sync again")


def the_pages_in_a_browser(dev: Dev) -> None:
    """The graph, an asset with its change, its checks, the run with a step for each resource."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH")
    from playwright.sync_api import expect, sync_playwright

    shots = os.environ.get("GAMMA_SCREENSHOTS")
    run = next(r["runId"] for r in dev.runs() if r["tags"].get("gamma/cause") == "drift")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        page = browser.new_page(viewport={"width": 1500, "height": 950})

        def look(path: str, name: str, *texts: str) -> None:
            page.goto(dev.url + path)
            for text in texts:
                expect(page.get_by_text(text).first).to_be_visible(timeout=30_000)
            if shots:
                page.wait_for_timeout(2_000)
                page.screenshot(path=Path(shots) / f"{name}.png")

        try:
            look("/asset-groups/", "groups", "database", "delivery")
            look("/locations/dev/asset-groups/database/lineage", "graph", "readers", "2 / 2 Passed")
            look(
                "/assets/dev/Table/accounts",
                "asset",
                "Who may use the API.",
                "drifted",
                "Latest check results",
            )
            look("/assets/dev/Table/accounts?view=checks", "checks", "healthy", "in_sync", "Passed")
            look(f"/runs/{run}", "run", "Table__accounts", "Index__request_log_failures", "drifted")
            look("/assets/dev", "environment", "20 of 20 ready")
        finally:
            browser.close()


def a_commit_starts_a_run_in_which_a_failure_fails_its_branch(dev: Dev) -> None:
    """The new resources are assets without a restart; what failed is told once, and only once."""
    known = {run["runId"] for run in dev.runs()}
    (dev.root / "specs" / "database" / "more.yaml").write_text(NOTES)
    commit(dev.root, "notes")
    run = dev.next_run(known, "commit")
    tags = dev.run(run)["tags"]
    assert (tags["gamma/author"], tags["gamma/subject"]) == ("Ann", "notes")
    assert dev.ended(run) == "FAILURE"
    told = materialized(dev.events(run))
    assert sorted(told) == ["Index/notes-text", "Table/notes"]
    failed = [event for event in dev.events(run) if event["__typename"] == "ExecutionStepFailureEvent"]
    assert [event["stepKey"] for event in failed] == ["Index__notes_nothing"]
    until(lambda: bool(dev.listener.received), "the notification")
    time.sleep(3)
    assert len(dev.listener.received) == 1
    path, message = dev.listener.received[0]
    assert path == "/failed"
    assert message["run"] == run
    assert [one["step"] for one in message["failed"]] == ["Index__notes_nothing"]
    (dev.root / "specs" / "database" / "more.yaml").unlink()
    commit(dev.root, "no notes")
    undone = dev.next_run({run, *known}, "commit")
    assert dev.ended(undone) == "SUCCESS"
    assert dev.columns("notes") == {}


def a_killed_run_is_taken_up_by_the_next_tick(dev: Dev) -> None:
    """SIGKILL while an index is being built behind a lock: no effect twice, and the same world."""
    known = {run["runId"] for run in dev.runs()}
    dev.sql("DROP INDEX app.request_log_failures", "DROP INDEX app.accounts_email")
    holder = dev.connect()
    with holder.cursor() as cursor:  # an open writer: a concurrent build waits for it
        cursor.execute("LOCK TABLE app.request_log IN ROW EXCLUSIVE MODE")
    run = dev.next_run(known, "drift")
    building = "SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'create%index%request_log_failures%'"
    until(lambda: dev.sql(building)[0][0] > 0, "the build")
    started = next(e["message"] for e in dev.events(run) if "Started process for run" in e.get("message", ""))
    process = int(re.search(r"pid: (\d+)", started)[1])  # type: ignore[index]
    os.kill(process, signal.SIGKILL)
    until(lambda: not dev.sql(building)[0][0], "the end of the killed process' session", 60)
    holder.rollback()
    holder.close()
    until(lambda: dev.run(run)["status"] in ("FAILURE", "CANCELED"), "the end of the killed run")
    healed = dev.next_run({run, *known}, "drift")
    assert dev.ended(healed) == "SUCCESS"
    assert {"request_log_failures", "accounts_email"} <= dev.indexes()
    status = gamma(dev.root, "plan", "-e", "dev")
    assert (status.returncode, status.stdout) == (0, "No changes. 20 resources of dev as declared.\n")
    database = Database(ledger_url(dev.root))
    assert verify(database, "dev") == []
    database.close()


def plan_and_verify_only_read_and_destroy_asks(dev: Dev) -> None:
    plan = dev.launch("plan")
    verified = dev.launch("verify")
    refused = dev.launch("destroy", config={"ops": {"delete_all": {"config": {"confirm": "yes"}}}})
    assert dev.ended(plan) == "SUCCESS"
    assert any("No changes." in event.get("message", "") for event in dev.events(plan))
    assert dev.ended(verified) == "SUCCESS"
    assert dev.ended(refused) == "FAILURE"
    assert any("type its name" in json.dumps(event) for event in dev.events(refused))
    assert "accounts_email" in dev.indexes()


def test_an_operators_day(dev: Dev, subtests: pytest.Subtests) -> None:
    for part in (
        a_run_launched_by_hand,
        a_change_made_outside_is_shown_and_heals,
        the_pages_in_a_browser,
        a_commit_starts_a_run_in_which_a_failure_fails_its_branch,
        a_killed_run_is_taken_up_by_the_next_tick,
        plan_and_verify_only_read_and_destroy_asks,
    ):
        with subtests.test(part.__name__):
            part(dev)
