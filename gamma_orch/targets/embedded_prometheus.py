"""A Prometheus of Gamma's own: made, started, stopped and destroyed with the distribution's own program.

One server a target of an environment that says `{type: prometheus, embedded: true}`. Whoever needs it calls
`ensure`; `gamma down` stops it; in between it outlives the command that started it.

What always holds: it listens on 127.0.0.1 alone, and answers one user with a password that was made for it;
it reads rules from `rules.d` and nowhere else; two processes that ensure it at once get the same server; one
that was killed is started again, with all it had written.

    <state>/<environment>/prometheus-<name>/prometheus.yml, web.yml, rules.d/, data/, port, password, pid,
                                            server.log

All methods block; call them in a thread.
"""

import socket
import time
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

from gamma_orch.core.provider import Permanent
from gamma_orch.targets.distribution import Distribution, Program
from gamma_orch.targets.embedded_postgres import State
from gamma_orch.targets.home import PATIENCE, Home, end, tail

PROMETHEUS = Program("prometheus", "prometheus")
USER = "gamma"
COST = 4  # of bcrypt, for a password of 32 random letters: each request is checked by it
# Paths are relative to the folder that it runs in, so that none needs quoting.
CONFIGURATION = """\
global:
  scrape_interval: 5s
  evaluation_interval: 5s
rule_files: ["rules.d/*.yml"]
scrape_configs:
  - job_name: prometheus
    basic_auth: {user}
    static_configs: [{targets}]
"""
# It does not put itself into the background.
LAUNCH = 'umask 077; "$0" "$@" >>server.log 2>&1 </dev/null & echo $! >pid'


class EmbeddedPrometheus:
    def __init__(self, home: Path, tools: Path, interval: str = "5s") -> None:
        """`home` is the server's folder, `tools` where programs of the distribution are unpacked; `interval`
        is that of its scrapes and evaluations, from its next start on."""
        self._home = Home(home.resolve(), "Prometheus", "prometheus")
        self._distribution = Distribution(tools)
        self._interval = interval

    @property
    def home(self) -> Path:
        return self._home.folder

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def rules(self) -> Path:
        return self.home / "rules.d"

    @property
    def url(self) -> str:
        """Without the password. Raises Permanent where it never was started."""
        return f"http://127.0.0.1:{self._port()}"

    def authorization(self) -> str:
        """The value of the header. Raises Permanent where it never was started."""
        try:
            password = (self.home / "password").read_text()
        except OSError as error:
            raise Permanent(f"There is no Prometheus in {self.home}: {error}.") from None
        return "Basic " + b64encode(f"{USER}:{password}".encode()).decode()

    def state(self) -> State:
        if not (self.home / "prometheus.yml").exists():
            return State.ABSENT
        return State.RUNNING if self._home.pid() is not None else State.STOPPED

    def ensure(self) -> None:
        """Make it where there is none, start it where it does not answer.

        Raises Missing where its program is not there and cannot be brought, and Permanent, with the end of
        its log, where it does not come up.
        """
        with self._home.alone():
            if self._home.pid() is None or not self._answers():
                end(self._home.pids(), 5.0)
                self._start()

    def stop(self) -> None:
        if self.home.is_dir():
            with self._home.alone():
                end(self._home.pids(), 10.0)

    def destroy(self) -> None:
        """Stop it and delete all it has."""
        self.stop()
        self._home.destroy()

    def _start(self) -> None:
        program = self._distribution.bring(PROMETHEUS)
        self._home.prepare()
        self.rules.mkdir(mode=0o700, exist_ok=True)
        port = self._free()
        self._home.write("port", str(port))
        self._home.write("web.yml", f"basic_auth_users: {{{USER}: '{self._hashed()}'}}\n")
        text = CONFIGURATION.format(
            user=f"{{username: {USER}, password_file: password}}",
            targets=f'{{targets: ["127.0.0.1:{port}"]}}',
        )
        self._home.write("prometheus.yml", text.replace("5s", self._interval))
        with suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(".log.1"))
        command = [
            "sh", "-c", LAUNCH, str(program), "--config.file=prometheus.yml", "--web.config.file=web.yml",
            "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}", "--web.enable-lifecycle",
        ]  # fmt: skip
        said = self._home.launch(command, {"PATH": "/usr/bin:/bin"})
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if not (pids := self._home.pids()) or time.monotonic() > deadline:
                end(pids, 0.0)
                raise self._home.failed(said + tail(self.log))
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            asked = urllib.request.Request(  # noqa: S310 - of our own making
                f"{self.url}/-/ready", headers={"Authorization": self.authorization()}
            )
            with urllib.request.urlopen(asked, timeout=3) as answer:  # noqa: S310 - as above
                return bool(answer.status == 200)
        except (OSError, Permanent):
            return False

    def _port(self) -> int:
        try:
            return int((self.home / "port").read_text())
        except (OSError, ValueError):
            raise Permanent(f"There is no Prometheus in {self.home}.") from None

    def _free(self) -> int:
        """The port of before, where nobody has it by now."""
        known = 0
        with suppress(Permanent):
            known = self._port()
        for port in (known, 0):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with suppress(OSError):
                    probe.bind(("127.0.0.1", port))
                    return int(probe.getsockname()[1])
        raise Permanent("There is no free port on 127.0.0.1.")

    def _hashed(self) -> str:
        import bcrypt

        return bcrypt.hashpw(self._home.password().encode(), bcrypt.gensalt(COST)).decode()
