"""The page and the PDF: one whole one beside its golden file, hostile names, nothing at all.

UPDATE_GOLDEN=1 writes the golden file; then look at it in a browser, as its readers do.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.report import pdf
from gamma_orch.report.answers import Answer
from gamma_orch.report.contents import Raw, report
from gamma_orch.report.page import page
from tests.report.example import HOSTILE, week

GOLDEN = Path(__file__).parents[1] / "golden" / "report" / "week.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def whole() -> str:
    return page(report(week()))


def empty() -> Raw:
    nothing = Answer("q", error="The environment declares no Prometheus.")
    return replace(
        week(),
        commit="",
        prometheus="",
        error=nothing.error,
        up=nothing,
        firing=nothing,
        services=type(week().services)(nothing, nothing, nothing),
        objectives=[],
        running=[],
        elsewhere=[],
        events=[],
    )


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_whole_week(whole: str) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(whole, encoding="utf-8")
    assert whole == GOLDEN.read_text(encoding="utf-8")


def test_it_is_one_file_that_asks_nobody(whole: str) -> None:
    found = Elements(whole)
    loaded = [value for name, value in found.attributes if name in ("src", "href", "xlink:href", "action")]
    assert all((value or "").startswith("#") for value in loaded), "of the plots, within the page"
    assert not re.search(r"url\((?!#)", whole)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(found.tags)
    assert len(set(found.ids)) == len(found.ids), "each plot has ids of its own"


def test_hostile_names_stay_texts(whole: str) -> None:
    found = Elements(whole)
    assert "<script" not in whole
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    said = "".join(found.text)
    assert said.count(HOSTILE) >= 4, "the rule, its severity, its resource, an error"
    assert '<script>alert("x")</script> $\\f...' in said, "in a plot too, and not as a formula"


def test_letters_that_the_font_has_not_are_the_browsers_to_draw() -> None:
    raw = week()
    renamed = [
        replace(one, labels={**one.labels, "alertname": "磁盘已满"})
        for one in raw.firing.series
        if "instance" in one.labels
    ]
    text = page(report(replace(raw, firing=replace(raw.firing, series=tuple(renamed)))))
    assert text.count(">磁盘已满<") >= 2, "in the plot and in the table"


def test_what_is_not_known_is_said_and_not_drawn() -> None:
    text = page(report(empty()))
    assert "<svg" not in text
    assert "The environment declares no Prometheus." in text
    assert "its ledger is empty" in text
    assert "100 %" not in "".join(Elements(text).text).partition("How this")[0].partition("</style>")[2]
    assert text.count("no data") >= 4


def test_a_pdf_has_pages_and_their_texts(whole: str, tmp_path: Path) -> None:
    made = pdf.document(whole)
    assert 3 <= len(made.pages) <= 8
    texts = [text for one in made.pages for text in _texts(one._page_box)]
    said = " ".join(texts)
    for text in (
        "99.84 %",
        "api-strict",
        "Rules that never fired",
        "certificate, loop-lag",
        "How this was computed",
    ):
        assert text in said, text
    assert "sum by (job, model, status)" in said, "on paper nothing is folded"
    made.write_pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")


def _texts(box: Any) -> Iterator[str]:
    if hasattr(box, "text"):
        yield box.text
    for child in getattr(box, "children", ()):
        yield from _texts(child)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (ImportError("weasyprint"), "pip install"),
        (OSError("cannot load library 'libpango'"), "apt-get install"),
    ],
)
def test_where_there_can_be_no_pdf_it_says_how(
    fault: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "weasyprint":
                raise fault

    for name in [one for one in sys.modules if one.split(".")[0] == "weasyprint"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(pdf.NoPdf, match=says):
        pdf.document("<p>")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_nothing_runs_over_the_edge_or_over_each_other(whole: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    (tmp_path / "report.html").write_text(whole, encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 900, "height": 900})
        said: list[str] = []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("dialog", lambda dialog: said.append(dialog.message))
        opened.on("request", lambda asked: said.append(asked.url) if "report.html" not in asked.url else None)
        opened.goto((tmp_path / "report.html").as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth") <= 900
        # Texts of a plot, by their boxes; an axis' own label may be turned.
        overlapping = opened.evaluate(
            """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
                const texts = [...svg.querySelectorAll("text")]
                const all = texts.map(one => [one.textContent, one.getBoundingClientRect()])
                const edge = svg.getBoundingClientRect()
                const out = all.filter(([, box]) => box.left < edge.left - 1 || box.right > edge.right + 1)
                const over = all.filter(([, a], n) => all.slice(n + 1).some(([, b]) =>
                    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
                    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4))
                return [...out, ...over].map(([text]) => text)
            })"""
        )
        assert overlapping == []
        assert said == []
        browser.close()
