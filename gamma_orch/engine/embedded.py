"""What runs on this machine for an environment: PostgreSQL, Valkey, monitoring, supervised services.
Which there are, stopping them, deleting their data."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from gamma_orch.engine.converge import Site
from gamma_orch.targets.embedded_alertmanager import EmbeddedAlertmanager
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres, State
from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus
from gamma_orch.targets.embedded_valkey import EmbeddedValkey
from gamma_orch.targets.local_server import LocalServer
from gamma_orch.targets.supervised import Supervised, Supervisor


def valkeys(state: Path, environment: str) -> list[EmbeddedValkey]:
    homes = sorted(home for home in (state / environment).glob("valkey-*") if home.is_dir())
    return [EmbeddedValkey(home) for home in homes]


def monitoring(state: Path, environment: str) -> list[LocalServer]:
    """Prometheus first: it tells the Alertmanager of its alerts."""
    found: list[LocalServer] = []
    for prefix, server in (("prometheus", EmbeddedPrometheus), ("alertmanager", EmbeddedAlertmanager)):
        homes = sorted(home for home in (state / environment).glob(f"{prefix}-*") if home.is_dir())
        found += [server(home, state / "tools") for home in homes]
    return found


def supervisor(state: Path, environment: str) -> Supervisor:
    return Supervisor(state / environment / "supervisor")


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
    state = site.world.targets.state
    for valkey in valkeys(state, site.environment):
        if valkey.state() is State.RUNNING:
            yield f"Valkey of {site.environment} runs on {valkey.socket}; log in {valkey.log}"
    for local in monitoring(state, site.environment):
        name = local.home.name.partition("-")[2]
        if local.state() is State.RUNNING:
            yield f"{local.WHAT} {name!r} of {site.environment} runs on {local.url}"
            yield f"  user gamma; password in {local.home / 'password'}; log in {local.log}"
    services = supervisor(state, site.environment)
    if services.running():
        for program in Supervised(services).programs():
            place = program.unix or f"http://{program.place}"
            yield f"{program.name} of {site.environment} answers on {place}"
            yield f"  {program.workers} workers; logs in {services.home / 'logs'}"


def stop(state: Path, environment: str) -> Iterator[str]:
    """The services first: they use what the others have."""
    services = supervisor(state, environment)
    if services.running():
        yield f"Draining and stopping the services of {environment}."
    services.stop()  # and workers that a killed supervisord has left
    for valkey in valkeys(state, environment):
        if valkey.state() is State.RUNNING:
            yield f"Stopping Valkey of {environment}."
            valkey.stop()
    for local in monitoring(state, environment):
        if local.state() is State.RUNNING:
            yield f"Stopping {local.WHAT} of {environment}."
            local.stop()
    for server in servers(state, environment):
        name = server.home.name.removeprefix("postgres-")
        if server.state() is State.RUNNING:
            yield f"Stopping PostgreSQL {name!r} of {environment}."
            server.stop()
        else:
            yield f"PostgreSQL {name!r} of {environment} does not run."


def forget(state: Path, environment: str) -> Iterator[str]:
    """Delete the servers' data and the generated secrets of one environment. The ledger stays."""
    supervisor(state, environment).destroy()
    for valkey in valkeys(state, environment):
        valkey.destroy()
    for local in monitoring(state, environment):
        local.destroy()
    for server in servers(state, environment):
        server.destroy()
    shutil.rmtree(state / environment, ignore_errors=True)
    yield f"Deleted {state / environment}."
