"""Projects of Things for Dagster, and runs of them in this process."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from gamma_orch.core.address import Address
from gamma_orch.engine.converge import apply, look
from gamma_orch.engine.doors import ledger_url, opened, run
from gamma_orch.orchestration import location
from gamma_orch.orchestration.keys import asset_key
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import events, verify
from gamma_orch.testing.world import World

PIPELINES = Path(__file__).parents[2] / "pipelines"


def thing(name: str, after: str | None = None, **spec: Any) -> str:
    fields = {**spec, **({"after": after} if after else {})}
    said = ", ".join(f"{key}: {value}" for key, value in fields.items())
    return f"---\napiVersion: gamma/v1\nkind: Thing\nmetadata: {{name: {name}}}\nspec: {{{said}}}\n"


def project(root: Path, *documents: str, settings: str = "") -> Path:
    """A project with an environment dev, whose `spec` goes on with `settings`."""
    (root / "specs").mkdir(parents=True, exist_ok=True)
    (root / "environments" / "dev").mkdir(parents=True, exist_ok=True)
    write(root, *documents)
    head = "apiVersion: gamma/v1\nkind: Environment\nmetadata: {name: dev}\nspec:\n  variables: {}\n"
    (root / "environments" / "dev" / "environment.yaml").write_text(head + settings)
    shutil.copytree(PIPELINES, root / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def write(root: Path, *documents: str) -> None:
    (root / "specs" / "things.yaml").write_text("".join(documents))


def commit(root: Path, subject: str) -> None:
    git = ["git", "-C", str(root), "-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    if not (root / ".git").exists():
        subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
        (root / ".gitignore").write_text(".gamma\n__pycache__\n")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", subject], check=True)


def key(name: str, kind: str = "Thing") -> dg.AssetKey:
    return asset_key("dev", Address(kind, name))


def reconcile(
    root: Path,
    instance: dg.DagsterInstance,
    *names: str,
    config: Mapping[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """A run of these Things, or of all of them."""
    where = location(root, "dev")
    chosen = {key(name) for name in names} or set(where.asset_graph.executable_asset_keys)
    job = where.get_maybe_subset_job_def("reconcile", asset_selection=chosen)
    given = {"resources": {"gamma": {"config": dict(config or {})}}}
    done: dg.ExecuteInProcessResult = job.execute_in_process(
        instance=instance, run_config=given, raise_on_error=False, asset_selection=sorted(chosen)
    )
    return done


def world(root: Path) -> World:
    return World(root / ".gamma" / "dev" / "world.jsonl")


def applied(root: Path) -> None:
    """`gamma apply`, by the engine."""
    with opened(root, "dev") as site:
        outcome = run(site, apply(site))
    assert not outcome.failed


def pending(root: Path) -> dict[str, str]:
    """What a plan of now would do: address -> action."""
    with opened(root, "dev") as site:
        plan = run(site, look(site)).plan
    return {str(c.address): c.action.value for c in plan.changes if c.action.value != "keep"}


@contextmanager
def ledger(root: Path) -> Iterator[Database]:
    database = Database(ledger_url(root))
    try:
        yield database
    finally:
        database.close()


def history(root: Path) -> list[str]:
    """The log as `type address`, and a check that it is sound."""
    with ledger(root) as database:
        assert verify(database, "dev") == []
        return [f"{e.type.value} {e.address or ''}".strip() for e in events(database, "dev")]
