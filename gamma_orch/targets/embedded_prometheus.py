"""A Prometheus of Gamma's own, for a target that says `{type: prometheus, embedded: true}`.

Whoever needs it calls `ensure`; `gamma down` stops it; in between it outlives the command that started it. It
reads rules from `rules.d` and nowhere else, and sends alerts to the Alertmanager that its target names, which
is started before it. What it scrapes, beside itself, is in the files of `scrapes.d`: `compose` makes its
configuration of them, for Prometheus reads such files itself from 2.43 on only, and Debian 12 has 2.42.

    <state>/<environment>/prometheus-<name>/prometheus.yml, rules.d/, scrapes.d/, data/,
                                            and what `local_server` says
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from gamma_orch.core.canonical import Json
from gamma_orch.targets.distribution import Program
from gamma_orch.targets.embedded_alertmanager import DISCOVERY, EmbeddedAlertmanager
from gamma_orch.targets.local_server import USER, LocalServer

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast as the other


def parsed(text: str) -> Json:
    """YAML of Prometheus' own. Raises yaml.YAMLError."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class EmbeddedPrometheus(LocalServer):
    WHAT = "Prometheus"
    PROGRAM = Program("prometheus", "prometheus")
    CONFIGURATION = "prometheus.yml"

    def __init__(
        self, home: Path, tools: Path, alertmanager: EmbeddedAlertmanager | None = None, interval: str = "5s"
    ) -> None:
        """`interval`: that of scrapes and evaluations, from its next start on."""
        super().__init__(home, tools)
        self._alertmanager, self._interval = alertmanager, interval

    @property
    def rules(self) -> Path:
        return self.home / "rules.d"

    @property
    def scrapes(self) -> Path:
        return self.home / "scrapes.d"

    def compose(self) -> None:
        """Its configuration, of what it scrapes by now."""
        self._home.write("prometheus.yml", self._configuration(self.port))

    def _files(self, port: int) -> Mapping[str, str]:
        for folder in (self.rules, self.scrapes):
            folder.mkdir(mode=0o700, exist_ok=True)
        if self._alertmanager is not None:
            self._alertmanager.ensure()
        return {"prometheus.yml": self._configuration(port)}

    def _configuration(self, port: int) -> str:
        itself = {
            "job_name": "prometheus",
            "basic_auth": {"username": USER, "password_file": "password"},
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        }
        configuration = {
            "global": {"scrape_interval": self._interval, "evaluation_interval": self._interval},
            "rule_files": ["rules.d/*.yml"],
            "scrape_configs": [itself, *self._jobs()],
        }
        if self._alertmanager is not None:
            place = self._alertmanager.home
            there = {
                "basic_auth": {"username": USER, "password_file": str(place / "password")},
                "file_sd_configs": [{"files": [str(place / DISCOVERY)], "refresh_interval": "5s"}],
            }
            configuration["alerting"] = {"alertmanagers": [there]}
        return yaml.safe_dump(configuration, sort_keys=False)

    def _jobs(self) -> Iterator[Json]:
        for path in sorted(self.scrapes.glob("*.yml")):
            yield from parsed(path.read_text(encoding="utf-8"))["scrape_configs"]

    def _arguments(self) -> list[str]:
        return [
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.enable-lifecycle",
            # An Alertmanager that was away hears of what fires still; the default is a minute.
            "--rules.alert.resend-delay=10s",
            # What fired before a kill goes on, and does not wait for its `for` again, in which it would be
            # told to be over. The default is that for rules of ten minutes and more alone.
            "--rules.alert.for-grace-period=0s",
        ]
