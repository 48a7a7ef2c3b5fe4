"""The provider laws, on a real Prometheus and a real Alertmanager."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.leaves import Secret
from gamma_orch.kinds.monitoring import (
    alert_rule,
    escalation_policy,
    metric_collector,
    notification_channel,
    slo,
)
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.references import plain
from gamma_orch.targets import Targets
from gamma_orch.targets.embedded_alertmanager import EmbeddedAlertmanager
from gamma_orch.targets.embedded_postgres import State
from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus
from gamma_orch.targets.local_server import LocalServer
from gamma_orch.targets.supervised import Supervisor
from gamma_orch.testing.laws import LAWS, Law, Sample, Subject, check, no_secret_is_shown
from tests.kinds.monitoring.test_prometheus import tools

pytestmark = pytest.mark.timeout(300)
TARGETS = {
    "metrics": {"type": "prometheus", "embedded": True},
    "pager": {"type": "alertmanager", "embedded": True},
    "main": {"type": "postgres", "embedded": True},
}
KINDS: Mapping[str, Kind] = {
    one.name: one
    for one in (
        alert_rule.KIND,
        escalation_policy.KIND,
        metric_collector.KIND,
        notification_channel.KIND,
        slo.KIND,
    )
}
RULES = ("AlertRule", "MetricCollector", "SLO")  # on a Prometheus
SECRETS = ("MetricCollector", "NotificationChannel")
HOOK = Secret("hook", "1")
MAIL = {"to": ["a@x.org"], "from": "b@x.org", "server": "x:25", "user": "u", "password": HOOK}
ERRORS = {"indicator": {"total": "x_total", "bad": "x_total{code='500'}"}}
SLOW = {"indicator": {"latency": {"metric": "x_seconds", "below": "1s", "where": {"a": "b"}}}, "window": "7d"}
NOW, LATER = {"channels": ["hook"]}, {"channels": ["hook"], "after": "5m"}


def sample(kind: str, name: str, spec: Any, changed: Any) -> Sample:
    where = {"prometheus": "metrics"} if kind in RULES else {"alertmanager": "pager"}

    def made(said: Any) -> Any:
        return plain(KINDS[kind].spec.model_validate({**where, **said}, by_alias=True))

    return Sample(Address(kind, name), made(spec), changed=made(changed))


SAMPLES = {
    "AlertRule": (
        sample("AlertRule", "a", {"expr": "up == 0", "summary": "x"}, {"expr": "up == 1", "summary": "x"}),
        sample(
            "AlertRule",
            "b",
            {"metric": "x", "above": 5, "for": "90s", "keepFiring": "5m", "summary": "x"},
            {"metric": "x", "unusual": {"by": "season"}, "summary": "y", "labels": {"team": "a"}},
        ),
    ),
    "SLO": (
        sample("SLO", "a", {"objective": "99%", **ERRORS}, {"objective": "99.9%", **ERRORS}),
        sample("SLO", "b", {"objective": 0.9, **SLOW}, {"objective": 0.9, "runbook": "https://x", **ERRORS}),
    ),
    "MetricCollector": (
        sample(
            "MetricCollector",
            "a",
            {"scrape": {"urls": ["http://127.0.0.1:9/metrics"], "bearer": HOOK}, "every": "90s"},
            {"http": {"url": HOOK, "headers": {"x": HOOK}}, "labels": {"team": "a"}},
        ),
        sample(
            "MetricCollector",
            "b",
            {"sql": {"queries": [{"name": "x", "query": "select 1 as one", "gauges": ["one"]}]}},
            {"scrape": {"urls": ["https://localhost", "http://127.0.0.1:9/a/b"]}, "timeout": "2s"},
        ),
    ),
    "NotificationChannel": (
        sample(
            "NotificationChannel",
            "a",
            {"webhook": {"url": HOOK}},
            {"slack": {"url": HOOK, "channel": "#a"}, "resolved": False},
        ),
        sample(
            "NotificationChannel",
            "b",
            {
                "email": {
                    "to": ["a@x.org"],
                    "from": "b@x.org",
                    "server": "x:25",
                    "user": "u",
                    "password": HOOK,
                }
            },
            {"pagerduty": {"key": HOOK}},
        ),
    ),
    "EscalationPolicy": (
        sample("EscalationPolicy", "a", {"steps": [NOW]}, {"steps": [LATER]}),
        sample(
            "EscalationPolicy",
            "b",
            {"match": {"severity": "critical"}, "group": ["job"], "wait": "90s", "steps": [NOW]},
            {"match": {"a": 'b"c'}, "repeat": "1d", "steps": [NOW, LATER]},
        ),
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("laws") / ".gamma"
    tools(folder)
    yield folder
    for server in (prometheus(folder), pager(folder), Supervisor(folder / "dev" / "supervisor")):
        server.destroy()


def prometheus(root: Path) -> EmbeddedPrometheus:
    return EmbeddedPrometheus(root / "dev" / "prometheus-metrics", root / "tools")


def pager(root: Path) -> EmbeddedAlertmanager:
    return EmbeddedAlertmanager(root / "dev" / "alertmanager-pager", root / "tools")


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps(kind: str, law: Law, root: Path) -> None:
    server: LocalServer = prometheus(root) if kind in RULES else pager(root)
    if server.state() is not State.ABSENT:
        server.destroy()
    targets = {name: dict(said) for name, said in TARGETS.items()}

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield KINDS[kind].provider(Targets("dev", root, targets, lambda tree: tree))

    @contextmanager
    def unreadable(address: Address) -> Iterator[frozenset[Address]]:
        """A server that does not come up."""
        server.ensure()
        server.stop()
        program, aside = root / "tools", root / "aside"
        program.rename(aside)
        kept, os.environ["PATH"] = os.environ["PATH"], "/nowhere"
        yield frozenset(one.address for one in SAMPLES[kind])
        os.environ["PATH"] = kept
        aside.rename(program)

    hook = "http://127.0.0.1:9/a-secret-hook"
    if kind == "EscalationPolicy":
        _with_a_channel(root, hook)
    if law is no_secret_is_shown and kind not in SECRETS:
        pytest.skip("it has no secrets")
    check(
        law,
        Subject(KINDS[kind].traits, opened, SAMPLES[kind], unreadable, {"hook": hook}, spec_shaped=False),
    )


def _with_a_channel(root: Path, url: str) -> None:
    """What policies send to; of another kind, so no law looks at it."""
    import asyncio

    from gamma_orch.targets.alertmanager import Alertmanager

    receiver = notification_channel.receiver("gamma:dev:hook", {"resolved": True, "webhook": {"url": url}})
    part = {
        "receivers": [receiver],
        "routes": [],
        "fields": {},
        "kind": "NotificationChannel",
        "name": "hook",
    }
    asyncio.run(Alertmanager("pager", pager(root)).put("NotificationChannel-hook", part))
