"""The embedded servers of an environment: which there are, stopping them, deleting their data."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from gamma_orch.engine.converge import Site
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres, State


def servers(state: Path, environment: str) -> list[EmbeddedPostgres]:
    """Found by their folders, so that one whose YAML is gone can still be stopped."""
    homes = sorted(home for home in (state / environment).glob("postgres-*") if home.is_dir())
    return [EmbeddedPostgres(home) for home in homes]


def running(site: Site) -> Iterator[str]:
    """A line for each embedded server, for people: what runs where, and how to look inside."""
    for server in servers(site.world.targets.state, site.environment):
        name = server.home.name.removeprefix("postgres-")
        if server.state() is State.RUNNING:
            yield f"PostgreSQL {name!r} of {site.environment} runs on 127.0.0.1:{server.server().port}"
            yield f"  user gamma; password in {server.home / 'password'}; log in {server.log}"


def stop(state: Path, environment: str) -> Iterator[str]:
    for server in servers(state, environment):
        name = server.home.name.removeprefix("postgres-")
        if server.state() is State.RUNNING:
            yield f"Stopping PostgreSQL {name!r} of {environment}."
            server.stop()
        else:
            yield f"PostgreSQL {name!r} of {environment} does not run."


def forget(state: Path, environment: str) -> Iterator[str]:
    """Delete the servers' data and the generated secrets of one environment. The ledger stays."""
    for server in servers(state, environment):
        server.destroy()
    shutil.rmtree(state / environment, ignore_errors=True)
    yield f"Deleted {state / environment}."
