"""A week of an environment, as Prometheus and a ledger would tell of it: what the golden page is made of.
Names are hostile in it where somebody else may choose them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.event import Event, Type
from gamma_orch.report import alerts, objectives, services
from gamma_orch.report.answers import Answer, Series
from gamma_orch.report.contents import Raw
from gamma_orch.report.span import Span

END = 1_796_083_200.0  # 2026-12-01 00:00 UTC
DAY = 86_400.0
SPAN = Span.of(END - 7 * DAY, END, 15)
WINDOW = Span.of(END - 30 * DAY, END, 15)
GAP = (END - 5 * DAY, END - 4.5 * DAY)  # Prometheus was not there
HOSTILE = '<script>alert("x")</script> $\\frac{1}{2}$ & --> \'"'
Shape = Callable[[float], float | None]


def there(at: float) -> bool:
    return not GAP[0] < at <= GAP[1]


def over(span: Span, value: Shape, size: int = 0) -> tuple[tuple[float, float], ...]:
    step = size or span.step
    ends = (span.start + step * (n + 1) for n in range(round(span.seconds / step)))
    return tuple((at, found) for at in ends if there(at) and (found := value(at)) is not None)


def answer(query: str, *series: tuple[Mapping[str, str], tuple[tuple[float, float], ...]]) -> Answer:
    return Answer(query, tuple(Series(labels, points) for labels, points in series))


def traffic(at: float) -> float:
    """Requests an hour: more by day."""
    return round(1200 + 900 * math.sin(2 * math.pi * (at - END) / DAY))


def failed(at: float) -> float:
    return round(traffic(at) * (0.06 if END - 2 * DAY < at <= END - 1.9 * DAY else 0.001))


def api() -> services.Source:
    def bucket(share: float) -> Shape:
        return lambda at: traffic(at) * min(1.0, share + 0.03 * math.sin(at / 40_000))

    bounds = {"0.01": 0.3, "0.025": 0.62, "0.05": 0.86, "0.1": 0.93, "0.25": 0.965, "1.0": 0.97, "+Inf": 1.0}
    return services.Source(
        answer(
            "sum by (job, model, status) (increase(gamma_requests_total[1h]))",
            (
                {"job": "api", "model": "sentiment", "status": "200"},
                over(SPAN, lambda at: traffic(at) - failed(at)),
            ),
            ({"job": "api", "model": "sentiment", "status": "500"}, over(SPAN, failed)),
            ({"job": "api", "model": "vectors", "status": "200"}, over(SPAN, lambda at: 300.0)),
            ({"job": "api", "model": "", "status": "401"}, over(SPAN, lambda at: 4.0)),
            ({"job": "batch", "model": "", "status": "200"}, over(SPAN, lambda at: 0.0)),
        ),
        answer(
            "sum by (job, le) (increase(gamma_request_seconds_bucket[1h]))",
            *(({"job": "api", "le": le}, over(SPAN, bucket(share))) for le, share in bounds.items()),
        ),
        answer(
            "sum by (job, cache) (increase(gamma_answers_total[1h]))",
            ({"job": "api", "cache": "made"}, over(SPAN, lambda at: 700.0)),
            ({"job": "api", "cache": "l1"}, over(SPAN, lambda at: 300.0)),
        ),
    )


def aim(
    name: str, objective: float, bad: Shape, events: Shape = traffic, about: str | None = None
) -> objectives.Source:
    def asked(span: Span, begins: float) -> objectives.Asked:
        def since(value: Shape) -> Shape:
            return lambda at: value(at) if at > begins else None

        part = answer(f"sum(increase(bad_total[{span.step}s]))", ({}, over(span, since(bad))))
        whole = answer(f"sum(increase(all_total[{span.step}s]))", ({}, over(span, since(events))))
        return objectives.Asked(span, part, whole, is_bad=True)

    recorded = answer(f'slo:error_budget:left{{slo="{name}"}}', ({}, ((END, 0.37),)))
    return objectives.Source(
        name, objective, "30d", about, asked(SPAN, 0), asked(WINDOW, END - 11 * DAY), recorded
    )


def unknown(name: str) -> objectives.Source:
    whole = aim(name, 0.95, lambda at: None, lambda at: None)
    return replace(whole, recorded=Answer(whole.recorded.query))


def firing(name: str, times: list[tuple[float, float]], **labels: str) -> tuple[Mapping[str, str], Any]:
    """Full pieces of the fine grid: four samples in each minute."""

    def samples(at: float) -> float | None:
        return 4.0 if any(begin < at <= end for begin, end in times) else None

    said = {"alertname": name, "alertstate": "firing", **labels}
    return said, over(SPAN, samples, SPAN.fine)


def fired() -> Answer:
    def every(hours: float, minutes: float) -> list[tuple[float, float]]:
        count = int(7 * 24 / hours)
        return [
            (END - 3600 * hours * (n + 1), END - 3600 * hours * (n + 1) + 60 * minutes) for n in range(count)
        ]

    return answer(
        'count_over_time(ALERTS{alertstate="firing"}[60s])',
        firing(
            "api-errors", [(END - 2 * DAY, END - 2 * DAY + 8640)], severity="critical", resource="Service/api"
        ),
        firing("api-slow", every(9, 20), severity="warning", resource="Service/api"),
        firing("disk-full", [(END - 6 * DAY, END - 3 * DAY)], severity="warning", instance="a"),
        firing("disk-full", [(END - 1 * DAY, END)], severity="warning", instance="b"),
        firing("drift", every(30, 5), severity="info", resource="Table/app.reviews"),
        firing(HOSTILE, [(END - 1 * DAY, END - 0.8 * DAY)], severity=HOSTILE, resource=HOSTILE),
    )


def ledger() -> list[Event]:
    found: list[Event] = []

    def put(kind: Type, at: float, token: int, address: str = "", **data: Any) -> None:
        text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        named = Address.parse(address) if address else None
        found.append(Event(kind, named, "p", "", data, len(found) + 1, token, text, "ci"))

    for n in range(12):
        at, token = END - 6.4 * DAY + n * 0.55 * DAY, n + 1
        put(Type.PLANNED, at, token, purpose="apply" if n % 4 == 0 else "Dagster run 1a2b3c4d")
        if n % 3 == 1:
            put(Type.DRIFTED, at, token, "Table/app.reviews", reason="drifted", fields=[])
        for k in range(n % 4 + 1):
            put(Type.BEGUN, at + k, token, f"Thing/t{k}", opcode="update")
            put(Type.DONE, at + 2 + 3 * k + n, token, f"Thing/t{k}", record=None, seconds=1)
        if n % 3 == 1:
            put(Type.DONE, at + 30, token, "Table/app.reviews", record=None)
        if n in (5, 9):
            put(Type.FAILED, at + 40, token, "Service/api", error=f"No answer within 30 s. {HOSTILE}")
        elif n == 2:
            put(
                Type.FAILED,
                at + 40,
                token,
                "Model/sentiment",
                error="The gate accuracy is not met: 0.81 of 0.85.",
            )
        else:
            put(Type.RELEASED, at + 41, token, commit="c" * 40)
        if n == 4:
            put(Type.DONE, at + 45, token, "Model/sentiment", record=None)
    return found


def week() -> Raw:
    up = answer(
        "max by (job) (max_over_time(up[60s]))",
        ({"job": "api"}, over(SPAN, lambda at: float(not END - 3 * DAY < at <= END - 2.95 * DAY), SPAN.fine)),
        ({"job": "prometheus"}, over(SPAN, lambda at: 1.0, SPAN.fine)),
    )
    rules = [
        ("api-errors", "critical"),
        ("api-slow", "warning"),
        ("loop-lag", "warning"),
        ("certificate", "info"),
    ]
    return Raw(
        environment="prod",
        commit="0123456789abcdef" * 2,
        span=SPAN,
        prometheus="Prometheus 'prometheus'",
        error="",
        up=up,
        firing=fired(),
        services=api(),
        objectives=[
            aim("api-availability", 0.995, failed, about="Service/api"),
            aim("api-strict", 0.999, failed),
            unknown("orders"),
        ],
        running=[alerts.Running(name, severity) for name, severity in rules],
        elsewhere=["AlertRule/down on other"],
        events=ledger(),
    )
