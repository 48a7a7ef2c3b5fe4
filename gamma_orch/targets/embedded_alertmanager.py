"""An Alertmanager of Gamma's own, for a target that says `{type: alertmanager, embedded: true}`.

Its configuration is one file, and is put together from parts: `alertmanager` has them. Whoever needs it calls
`ensure`; `gamma down` stops it. Silences and what has been told already are in `data`, and outlive it; a kill
loses those of the last second.

    <state>/<environment>/alertmanager-<name>/alertmanager.yml, parts/, discovery.json, data/, and what
                                              `local_server` says
"""

import json
from collections.abc import Mapping

from gamma_orch.targets.distribution import Program
from gamma_orch.targets.local_server import LocalServer

DISCOVERY = "discovery.json"  # where it is, for a Prometheus
NOBODY = "nobody"  # who gets what no policy sends to anybody
EMPTY = f"route: {{receiver: {NOBODY}}}\nreceivers: [{{name: {NOBODY}}}]\n"


class EmbeddedAlertmanager(LocalServer):
    WHAT = "Alertmanager"
    # Debian's looks for its templates there, whatever it is told.
    PROGRAM = Program(
        "prometheus-alertmanager", "prometheus-alertmanager", "/usr/share/prometheus/alertmanager"
    )
    CONFIGURATION = "alertmanager.yml"

    def _files(self, port: int) -> Mapping[str, str]:
        found = {DISCOVERY: json.dumps([{"targets": [f"127.0.0.1:{port}"]}])}
        if not (self.home / self.CONFIGURATION).exists():
            found[self.CONFIGURATION] = EMPTY
        return found

    def _arguments(self) -> list[str]:
        return [
            "--config.file=alertmanager.yml",
            "--storage.path=data",
            # Alone: it would listen for others on all addresses.
            "--cluster.listen-address=",
            # What a kill makes it forget: silences, and what it has told, without which it tells of no end.
            # The default is a quarter of an hour. It costs 0.1 % of a core and 22 kB written a second at 30
            # groups, 0.35 % and 126 kB at 1500.
            "--data.maintenance-interval=1s",
        ]
