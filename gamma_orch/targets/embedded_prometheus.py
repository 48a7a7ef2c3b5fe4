"""A Prometheus of Gamma's own, for a target that says `{type: prometheus, embedded: true}`.

Whoever needs it calls `ensure`; `gamma down` stops it; in between it outlives the command that started it. It
reads rules from `rules.d` and nowhere else, and sends alerts to the Alertmanager that its target names, which
is started before it.

    <state>/<environment>/prometheus-<name>/prometheus.yml, rules.d/, data/, and what `local_server` says
"""

from collections.abc import Mapping
from pathlib import Path

import yaml

from gamma_orch.targets.distribution import Program
from gamma_orch.targets.embedded_alertmanager import DISCOVERY, EmbeddedAlertmanager
from gamma_orch.targets.local_server import USER, LocalServer


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

    def _files(self, port: int) -> Mapping[str, str]:
        self.rules.mkdir(mode=0o700, exist_ok=True)
        itself = {
            "job_name": "prometheus",
            "basic_auth": {"username": USER, "password_file": "password"},
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        }
        configuration = {
            "global": {"scrape_interval": self._interval, "evaluation_interval": self._interval},
            "rule_files": ["rules.d/*.yml"],
            "scrape_configs": [itself],
        }
        if self._alertmanager is not None:
            self._alertmanager.ensure()
            place = self._alertmanager.home
            there = {
                "basic_auth": {"username": USER, "password_file": str(place / "password")},
                "file_sd_configs": [{"files": [str(place / DISCOVERY)], "refresh_interval": "5s"}],
            }
            configuration["alerting"] = {"alertmanagers": [there]}
        return {"prometheus.yml": yaml.safe_dump(configuration, sort_keys=False)}

    def _arguments(self) -> list[str]:
        return [
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.enable-lifecycle",
            # An Alertmanager that was away hears of what fires still; the default is a minute.
            "--rules.alert.resend-delay=10s",
        ]
