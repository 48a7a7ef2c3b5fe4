"""The real parts that kinds act upon: connect by URL, or run the embedded one.

The engine makes one `Targets` a command and hands it to every provider; it closes it at the end.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import did_you_mean
from gamma_orch.core.provider import Permanent
from gamma_orch.targets.postgres_errors import MissingDatabase

if TYPE_CHECKING:
    from gamma_orch.targets.alertmanager import Alertmanager
    from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
    from gamma_orch.targets.exporter import Exporter
    from gamma_orch.targets.grafana import Boards
    from gamma_orch.targets.postgres import Postgres
    from gamma_orch.targets.prometheus import Prometheus

__all__ = ["BUILDS", "Builds", "MissingDatabase", "Targets"]

PARALLEL = 4  # effects at once on one target, where it does not say `maxParallel`


BUILDS = "builds"  # the target of what is built on this machine


@dataclass(frozen=True, slots=True)
class Builds:
    """Where artifacts are kept, and how they are built."""

    store: str  # a folder or a URL; "" where the environment has none
    threads: int | None = None  # of one build; None: as many as there are cores
    parallel: int = 1


class Targets:
    """The connections of one environment during one command: opened at first use, closed at the end."""

    def __init__(
        self,
        environment: str,
        state: Path,
        declared: Mapping[str, Mapping[str, Json]],
        reveal: Callable[[Json], Json],
        builds: Builds | None = None,
        ledger: str = "",
    ) -> None:
        """`state` is the project's `.gamma` folder; `reveal` turns the leaves of a tree into values; `ledger`
        is the URL of the ledger, for other processes.

        A target is `{type: postgres, embedded: true}` or `{type: postgres, url: ...}`, with an optional
        `maxParallel`; or the same of the type prometheus, which beside a url has a folder of `rules`, and may
        name an `alertmanager`; or `{type: alertmanager, embedded: true}`; or `{type: grafana, url: ...}` with
        a `token`, or with a `folder` in the place of the url.
        """
        self.environment = environment
        self.state = state
        self.builds = builds or Builds(str(state / "artifacts"))
        self.ledger = ledger
        self._declared = declared
        self._reveal = reveal
        self._postgres: dict[str, Postgres] = {}
        self._prometheus: dict[str, Prometheus] = {}
        self._alertmanager: dict[str, Alertmanager] = {}
        self._grafana: dict[str, Boards] = {}
        self._exporter: Exporter | None = None

    def postgres(self, name: str) -> "Postgres":
        """The PostgreSQL server that the environment calls so. Permanent where it declares none."""
        if name not in self._postgres:
            declared = self._of_type(name, "postgres", "PostgreSQL")
            # The kinds import this module to validate specs, which needs no event loop.
            from gamma_orch.targets.postgres import Postgres

            server = self._server(name, declared)
            self._postgres[name] = Postgres(name, server, self.limit(f"postgres/{name}"))
        return self._postgres[name]

    def prometheus(self, name: str) -> "Prometheus":
        """The Prometheus that the environment calls so. Permanent where it declares none."""
        if name not in self._prometheus:
            declared = self._of_type(name, "prometheus", "Prometheus")
            from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus
            from gamma_orch.targets.prometheus import Prometheus

            if declared.get("embedded"):
                told, tools = declared.get("alertmanager"), self.state / "tools"
                pager = self.alertmanager(told).server if told else None
                interval = str(declared.get("interval", "5s"))
                server = EmbeddedPrometheus(self._home("prometheus", name), tools, pager, interval)
                self._prometheus[name] = Prometheus(name, server)
            else:
                url, rules = str(self._reveal(declared["url"])), str(self.state.parent / declared["rules"])
                scrapes = str(self.state.parent / declared["scrapes"]) if declared.get("scrapes") else ""
                self._prometheus[name] = Prometheus(name, None, url, rules, scrapes)
        return self._prometheus[name]

    def alertmanager(self, name: str) -> "Alertmanager":
        """The Alertmanager that the environment calls so. Permanent where it declares none."""
        if name not in self._alertmanager:
            self._of_type(name, "alertmanager", "Alertmanager")
            from gamma_orch.targets.alertmanager import Alertmanager
            from gamma_orch.targets.embedded_alertmanager import EmbeddedAlertmanager

            server = EmbeddedAlertmanager(self._home("alertmanager", name), self.state / "tools")
            self._alertmanager[name] = Alertmanager(name, server)
        return self._alertmanager[name]

    def grafana(self, name: str) -> "Boards":
        """Where the environment has dashboards that it calls so; "" is a folder of its own, under `state`.
        Permanent where it declares none."""
        if name not in self._grafana:
            from gamma_orch.targets.grafana import FILES, BoardFiles, Grafana

            if name == FILES:
                self._grafana[name] = BoardFiles(self.state / self.environment / "dashboards")
                return self._grafana[name]
            declared = self._of_type(name, "grafana", "Grafana")
            folder = str(declared.get("folder") or "")
            if (url := declared.get("url")) is None:
                self._grafana[name] = BoardFiles(self.state.parent / folder)
            else:
                token = str(self._reveal(declared.get("token")) or "")
                self._grafana[name] = Grafana(name, str(self._reveal(url)), token, folder)
        return self._grafana[name]

    def exporter(self) -> "Exporter":
        """The one of this environment."""
        if self._exporter is None:
            from gamma_orch.targets.exporter import Exporter

            self._exporter = Exporter(self.state / self.environment)
        return self._exporter

    def postgres_at(self, name: str) -> dict[str, str]:
        """Where the PostgreSQL server of that name is, for another process, which must not start it: `home`,
        the folder of an embedded one, or `url`, with its password. Permanent where none is declared."""
        if (url := self._of_type(name, "postgres", "PostgreSQL").get("url")) is not None:
            return {"url": str(self._reveal(url))}
        return {"home": str(self._home("postgres", name))}

    def valkey_home(self) -> str:
        """The folder of the Valkey that Gamma runs for caches, for another process."""
        return str(self._home("valkey", "main"))

    def _home(self, kind: str, name: str) -> Path:
        return self.state / self.environment / f"{kind}-{name}"

    def limit(self, target: str) -> int:
        """How many effects may run at once on a target such as `postgres/main`."""
        if target == BUILDS:
            return self.builds.parallel
        name = target.partition("/")[2]
        return int(self._declared.get(name, {}).get("maxParallel", PARALLEL))

    async def aclose(self) -> None:
        opened, self._postgres = self._postgres, {}
        for postgres in opened.values():
            await postgres.close()

    def _server(self, name: str, declared: Mapping[str, Json]) -> "EmbeddedPostgres | Callable[[], str]":
        from gamma_orch.targets.embedded_postgres import EmbeddedPostgres

        url = declared.get("url")
        if url is not None:
            return lambda: str(self._reveal(url))
        if not declared.get("embedded"):
            raise Permanent(
                f"Target {name!r} of environment {self.environment!r} says neither `url` nor "
                "`embedded: true`, so there is nothing to connect to. Add one of them to environment.yaml."
            )
        return EmbeddedPostgres(self.state / self.environment / f"postgres-{name}")

    def _of_type(self, name: str, kind: str, called: str) -> Mapping[str, Json]:
        """What the environment says of a target. Raises Permanent where it has none of this kind."""
        if (declared := self._declared.get(name)) is not None and declared.get("type") == kind:
            return declared
        servers = [key for key, target in self._declared.items() if target.get("type") == kind]
        hint = did_you_mean(name, servers) or "declare it under `targets` in environment.yaml"
        raise Permanent(f"Environment {self.environment!r} has no {called} target {name!r}: {hint}")
