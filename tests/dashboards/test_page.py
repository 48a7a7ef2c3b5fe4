"""The page in a browser: `gamma dashboards` of a project, on its real Prometheus. GAMMA_SCREENSHOTS names a
folder where it is left as pictures."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus
from tests.app.test_page import CHROMIUM, QUIET, Seen, shot
from tests.cli.gamma import write
from tests.kinds.models.project import gamma
from tests.kinds.monitoring.test_delivery import until
from tests.kinds.monitoring.test_prometheus import tools

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]
ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec: {targets: {prometheus: {type: prometheus, embedded: true, interval: 1s}}}
"""
RULE = """apiVersion: gamma/v1
kind: AlertRule
metadata: {name: watched}
spec:
  expr: prometheus_build_info == 1
  severity: info
  summary: Somebody looks.
  tests: [{series: {prometheus_build_info: "1x9"}, at: 1m, fires: [{}]}]
"""
BOARDS = r"""apiVersion: gamma/v1
kind: Dashboard
metadata: {name: first}
spec:
  title: First
  description: What is looked at.
  refresh: 1s
  span: 5m
  variables: [{name: page, title: Page, metric: prometheus_http_requests_total, label: handler}]
  rows:
    - panels:
        - {title: One, type: stat, expr: max(up), thresholds: {warning: 1, critical: 2}, width: 6}
        - {title: Size, type: stat, expr: "1500000 * max(up)", unit: bytes, width: 6}
        - title: Share
          type: gauge
          expr: 0.25 * max(up)
          unit: ratio
          max: 1
          thresholds: {critical: 90%}
          width: 6
        - {title: Never, expr: up == 7, width: 6}
    - title: Over time
      panels:
        - title: Requests
          expr: sum by (handler) (prometheus_http_requests_total{handler=~"$page"})
          legend: "to {{handler}}"
          stack: true
        - title: Time
          type: heatmap
          expr: sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[1m]))
        - {title: Pages, type: table, expr: 'prometheus_http_requests_total{handler=~"$page", code="200"}'}
        - title: Hostile
          type: stat
          expr: label_replace(up, "x", "<img src=x onerror=alert(1)>", "", "") or up
---
apiVersion: gamma/v1
kind: Dashboard
metadata: {name: second}
spec: {title: Second, refresh: 1s, rows: [{panels: [{title: Up, type: table, expr: up}]}]}
"""


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = EmbeddedPrometheus(
            folder / ".gamma" / "dev" / "prometheus-prometheus", folder / ".gamma" / "tools"
        )
        self.url = ""

    def start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "gamma_orch.cli", "dashboards", "-e", "dev"],
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
        assert found, line
        self.url = found[0]
        return process


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("dashboards")
    tools(folder / ".gamma")
    files = {
        "environments/dev/environment.yaml": ENVIRONMENT,
        "specs/rules.yaml": RULE,
        "specs/boards.yaml": BOARDS,
    }
    found = Place(write(folder, files))
    done = gamma(folder, "apply", "-e", "dev", "--yes")
    assert done.code == 0, done.err
    process = found.start()
    try:
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.communicate(timeout=20)[1]
        found.server.destroy()


@pytest.fixture
def page(place: Place) -> Iterator["Page"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(20_000)
        yield page
        browser.close()


def panel(page: "Page", title: str) -> "Locator":
    return page.get_by_role("region", name=title, exact=True)


def test_a_visit(page: "Page", place: Place) -> None:
    """Each type of panel shows what Prometheus says; it goes on by itself; a variable chooses; nothing is
    asked of anybody else."""
    from playwright.sync_api import expect

    seen = Seen(page)
    page.goto(place.url)
    expect(page).to_have_url(re.compile(r":\d+/$"))  # the token is out of the address
    expect(page.get_by_role("heading", name="First")).to_be_visible()
    expect(panel(page, "One").locator("b.warning")).to_have_text("1")
    expect(panel(page, "Size").locator("b")).to_have_text("1.5 MB")
    expect(panel(page, "Share").get_by_text("25 %").last).to_be_visible()
    expect(panel(page, "Never").get_by_text("No data.")).to_be_visible()
    expect(panel(page, "Requests").get_by_text("to /metrics")).to_be_visible()
    expect(panel(page, "Time").locator("image")).to_have_count(1)
    expect(panel(page, "Hostile")).to_contain_text("x=<img src=x onerror=alert(1)>")
    rows = panel(page, "Pages").locator("tbody tr")
    expect(rows.filter(has_text="/metrics")).to_have_count(1)
    assert rows.count() > 1
    scraped = int(rows.filter(has_text="/metrics").locator("td").last.inner_text())
    shot(page, "dashboard-first")

    expect(rows.filter(has_text="/metrics").locator("td").last).not_to_have_text(str(scraped))  # it goes on
    expect(page.get_by_role("status")).to_have_text(re.compile("Live, "))

    page.get_by_text("Page: all").click()
    page.get_by_label("/metrics", exact=True).check()
    expect(rows).to_have_count(1)
    expect(page).to_have_url(re.compile(r"#first\?page=%2Fmetrics$"))
    page.reload()  # the address says what was chosen
    expect(rows).to_have_count(1)
    expect(page.get_by_text("Page: /metrics")).to_be_visible()
    page.get_by_label("Span").select_option("900")
    expect(page).to_have_url(re.compile("span=900"))

    page.get_by_role("link", name="Second").click()
    expect(panel(page, "Up").locator("tbody tr")).to_have_count(1)
    expect(panel(page, "Requests")).to_have_count(0)
    shot(page, "dashboard-second")
    assert {re.sub(r"^(http|ws)://127\.0\.0\.1:\d+/.*", "here", url) for url in seen.asked} <= {
        "here",
        "data:,",
    }
    assert seen.complaints == []


def test_what_is_edited_is_seen_and_what_is_wrong_is_said(page: "Page", place: Place) -> None:
    from playwright.sync_api import expect

    path = place.folder / "specs" / "boards.yaml"
    try:
        page.goto(place.url)
        expect(panel(page, "One").locator("b")).to_have_text("1")
        path.write_text(BOARDS.replace("title: One", "title: Another"))
        page.reload()
        expect(panel(page, "Another").locator("b")).to_have_text("1")
        path.write_text(BOARDS.replace("expr: up == 7", "expr: rate(up)"))
        page.reload()
        problem = page.get_by_role("alert")
        expect(problem).to_contain_text("specs/boards.yaml:")
        expect(problem).to_contain_text("GAM931")
        expect(panel(page, "Another").locator("b")).to_have_text("1")  # as it was before
        shot(page, "dashboard-broken")
    finally:
        path.write_text(BOARDS)


@pytest.mark.nightly
def test_a_prometheus_that_does_not_answer_and_does_again(page: "Page", place: Place) -> None:
    """The panels say why they show nothing, and not what was before as if it were so."""
    from playwright.sync_api import expect

    page.goto(place.url)
    expect(panel(page, "One").locator("b")).to_have_text("1")
    pid = int((place.server.home / "pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        expect(page.get_by_role("status")).to_have_text(re.compile("^No answer since "), timeout=60_000)
        wrong = panel(page, "One").locator(".why.wrong")
        expect(wrong).to_contain_text("Prometheus", timeout=60_000)
        expect(panel(page, "Requests").locator(".why.wrong")).to_be_visible(timeout=60_000)
        shot(page, "dashboard-away")
    finally:
        os.kill(pid, signal.SIGCONT)
    expect(panel(page, "One").locator(".why")).to_have_text("", timeout=60_000)


def test_it_ends_by_ctrl_c_though_somebody_looks(page: "Page", place: Place) -> None:
    from playwright.sync_api import expect

    other = Place(place.folder)
    process = other.start()
    page.goto(other.url)
    expect(page.get_by_role("status")).to_have_text(re.compile("Live, "))
    process.send_signal(signal.SIGINT)
    until(lambda: process.poll() is not None, 20)
    assert process.returncode in (0, 130)
    assert "Traceback" not in process.communicate()[1]
    expect(page.get_by_role("status")).to_have_text("Not connected; what is shown is of before.")
