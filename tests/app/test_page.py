"""The page in a browser, on a real worker. GAMMA_SCREENSHOTS names a folder where it is left as pictures."""

import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gamma_orch.app.bundle import Bundle, Live
from tests.app.running import KEYS, Running, auth, bundle
from tests.app.tinies import changed, three

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Bundle]]:
    folder = tmp_path_factory.mktemp("page")
    found = bundle(three(folder), live=Live(every=0.3))
    with Running(folder / "home", found) as running:
        yield running, found


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


class Seen:
    """What the browser asked for, and what it complained of."""

    def __init__(self, page: "Page") -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', e => console.error(e.violatedDirective))"
        )


@pytest.fixture
def page(browser: object, served: tuple[Running, Bundle]) -> Iterator["Page"]:
    page = browser.new_page(viewport={"width": 1100, "height": 900})  # type: ignore[attr-defined]
    page.set_default_timeout(20_000)
    yield page
    page.close()


def connect(page: "Page", running: Running, key: str) -> None:
    if not page.url.startswith(running.url):
        page.goto(running.url + "/")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Connect").click()


def shot(page: "Page", name: str) -> None:
    if shots := os.environ.get("GAMMA_SCREENSHOTS"):
        page.screenshot(path=Path(shots) / f"{name}.png", full_page=True)


def test_a_visit(page: "Page", served: tuple[Running, Bundle]) -> None:
    """Connect, see the models, see the figures move while others ask, and ask a model oneself."""
    from playwright.sync_api import expect

    running, _ = served
    seen = Seen(page)
    page.goto(running.url + "/")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    shot(page, "page-before")
    connect(page, running, KEYS["all"])
    expect(page.get_by_role("status").first).to_have_text("Connected.")
    rows = page.get_by_role("row")
    expect(rows).to_have_count(4)
    expect(rows.nth(1)).to_contain_text("sentiment")
    expect(rows.nth(1)).to_contain_text("text-classification")
    expect(rows.nth(1)).to_contain_text("100 %")

    over = threading.Event()

    def ask() -> None:
        number = 0
        with running.client() as client:
            while not over.wait(0.01):
                number += 1
                client.post("/v1/models/sentiment/predict", json={"inputs": f"text {number % 7}"})

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        expect(page.locator("#rate")).to_have_text(re.compile(r"^([2-9]|\d\d+)\.\d$"))
        expect(page.locator("#hits")).to_have_text(re.compile(r"^[1-9]\d* %$"))
        expect(page.locator("#latency")).to_have_text(re.compile(r"^\d+(\.\d)? ms$"))
        expect(page.locator("polyline")).to_have_count(4)
        expect(page.locator("#errors")).to_have_text("0.0")
        page.get_by_label("Model", exact=True).select_option("sentiment")
        page.get_by_label("Text").fill("a lovely story")
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#took")).to_contain_text("by the model")
        expect(page.get_by_label("Answer")).to_contain_text('"label"')
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#took")).to_contain_text("from the cache (l1)")
        page.wait_for_timeout(1500 if "GAMMA_SCREENSHOTS" in os.environ else 0)
        shot(page, "page")
    finally:
        over.set()
        asking.join()
    page.get_by_label("Text").fill("x" * 3000)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#took")).to_contain_text("too long")
    own = (running.url, running.url.replace("http", "ws", 1), "data:,")
    assert all(url.startswith(own) for url in seen.asked), seen.asked
    assert not any(KEYS["all"] in url for url in seen.asked)
    assert [one for one in seen.complaints if "413" not in one] == []
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_a_wrong_key_says_so(page: "Page", served: tuple[Running, Bundle]) -> None:
    """And what another key showed is gone."""
    from playwright.sync_api import expect

    running, _ = served
    connect(page, running, KEYS["all"])
    expect(page.get_by_role("row")).to_have_count(4)
    expect(page.locator("#rate")).to_have_text(re.compile(r"\d"))
    connect(page, running, "gk_wrong")
    expect(page.get_by_role("status").first).to_have_text("The API key or token is not taken here.")
    expect(page.get_by_role("row")).to_have_count(1)
    expect(page.locator("#rate")).not_to_have_text(re.compile(r"\d"))
    expect(page.locator("polyline")).to_have_count(0)
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    shot(page, "page-wrong-key")
    connect(page, running, KEYS["caller"])
    expect(page.get_by_role("status").first).to_have_text("Connected; this key may not see live figures.")
    expect(page.get_by_role("row")).to_have_count(4)


def test_what_a_model_says_is_text(page: "Page", served: tuple[Running, Bundle]) -> None:
    """Whatever it says: nothing that comes from a model or from the API becomes a part of the page."""
    from playwright.sync_api import expect

    running, _ = served
    seen = Seen(page)
    connect(page, running, KEYS["all"])
    page.route(
        "**/predict",
        lambda route: route.fulfill(
            json={"outputs": "<img src=x onerror=alert(1)><script>alert(1)</script>"}
        ),
    )
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_label("Answer")).to_contain_text("<img src=x")
    assert page.locator("pre img, pre script").count() == 0
    assert seen.complaints == []


def test_the_policy_of_the_page_holds(page: "Page", served: tuple[Running, Bundle]) -> None:
    """What a foreign text would have to do is not let: to run, to load, to send elsewhere, to be framed."""
    running, _ = served
    page.goto(running.url + "/")
    tried = page.evaluate(
        """async () => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", (e) => seen.push(e.violatedDirective));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "https://elsewhere.example/x.png";
            document.body.append(image);
            const frame = document.createElement("iframe");
            frame.src = "/";
            document.body.append(frame);
            document.body.setAttribute("style", "color: red");
            document.body.setAttribute("onclick", "window.ran = true");
            document.body.click();
            await fetch("https://elsewhere.example/").catch(() => null);
            await new Promise((done) => setTimeout(done, 200));
            return [window.ran === undefined, seen];
        }"""
    )
    assert tried[0] is True
    assert {
        "script-src-elem",
        "script-src-attr",
        "img-src",
        "frame-src",
        "style-src-attr",
        "connect-src",
    } <= set(tried[1])


def test_the_figures_come_back_after_the_connection_was_lost(
    page: "Page", served: tuple[Running, Bundle]
) -> None:
    """As when a worker is replaced; and they end where the key may not listen any more."""
    from playwright.sync_api import expect

    running, found = served
    connect(page, running, KEYS["all"])
    state = page.get_by_role("status").first
    expect(page.locator("#rate")).to_have_text(re.compile(r"\d"))
    other = changed(found, live=Live(every=0.2))
    assert "error" not in running.swap(other)  # the old stream is closed with 1012
    expect(state).to_have_text("Live figures lost; connecting again.")
    expect(state).to_have_text("Connected.")
    fewer = auth().model_copy(update={"keys": auth().keys[1:]})
    assert "error" not in running.swap(changed(other, auth=fewer))
    expect(state).to_have_text("The key or token is not taken any more.")
    assert "error" not in running.swap(found)
