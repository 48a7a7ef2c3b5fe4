"""A request over HTTP as metrics, on a server that answers as its path says."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gamma_orch.exporter.contract import names
from tests.exporter.running import Exporter, Series, Site, series
from tests.exporter.tls import Certificate

SECRET = "hunter2hunter2"


def probe(exporter: Exporter, name: str, url: str, timeout: float = 2, **what: Any) -> dict[str, float]:
    """What the probe says, by the end of the name of each."""
    collector = exporter.put(name, http={"url": url, **what}, timeout=timeout)
    found: Series = exporter.scrape(name)
    assert {one for one, _ in found} <= names(collector)
    return {
        one.removeprefix("probe_"): value for (one, _), value in found.items() if one.startswith("probe_")
    }


def test_what_answers_as_it_should(exporter: Exporter, site: Site, name: str):
    found = probe(exporter, name, f"{site.url}/ok", contains="is well")
    assert found.pop("seconds") < 1
    assert found == {"success": 1, "status": 200, "bytes": 11}
    assert exporter.told(name)["error"] == ""


@pytest.mark.parametrize(
    ("path", "what", "success", "status"),
    [
        ("/500", {}, 0, 500),
        ("/500", {"status": [200, 500]}, 1, 500),
        ("/ok", {"status": [201]}, 0, 200),
        ("/ok", {"contains": "amiss"}, 0, 200),
        ("/ok", {"method": "HEAD"}, 1, 200),
        ("/moved", {}, 0, 302),
        ("/moved", {"status": [302]}, 1, 302),
    ],
)
def test_a_wrong_answer_is_no_success_of_the_probe_and_one_of_the_collector(
    exporter: Exporter, site: Site, name: str, path: str, what: dict[str, Any], success: int, status: int
):
    site.asked.clear()
    found = probe(exporter, "wrong-answer", f"{site.url}{path}", **what)
    assert (found["success"], found["status"]) == (success, status)
    assert exporter.told("wrong-answer")["up"] is True
    assert site.asked == [path]  # no redirection was followed


def test_a_million_bytes_are_enough(exporter: Exporter, site: Site, name: str):
    assert probe(exporter, name, f"{site.url}/big", contains="xxx")["bytes"] == 1_000_000


def test_who_does_not_answer_is_no_success_of_either(exporter: Exporter, site: Site, name: str):
    where = f"http://bob:{SECRET}@127.0.0.1:{site.port}/hang"
    found = probe(exporter, name, f"{where}?key={SECRET}", headers={"X-Key": SECRET}, timeout=0.5)
    assert found.keys() == {"success", "seconds"}
    assert found["success"] == 0
    assert 0.4 < found["seconds"] < 1
    assert "gives no whole answer" in exporter.told(name)["error"]
    # The status was there, and the body never came to its end.
    assert probe(exporter, name, f"{site.url}/drip", timeout=0.5)["status"] == 200
    assert "gives no whole answer" in exporter.error(name)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_who_is_not_there(exporter: Exporter, name: str, host: str):
    found = probe(exporter, "not-there", f"http://bob:{SECRET}@{host}:1/path?key={SECRET}#part")
    assert found.keys() == {"success", "seconds"}
    assert exporter.error("not-there") == f"http://{host}:1/path cannot be asked: Connection refused."


def test_secrets_are_sent_and_told_to_nobody_else(exporter: Exporter, site: Site, name: str):
    url = f"http://bob:{SECRET}@127.0.0.1:{site.port}/echo?key={SECRET}"
    # "bob:hunter2hunter2" as it is sent.
    right = '"Authorization": "Basic Ym9iOmh1bnRlcjJodW50ZXIy"'
    found = probe(exporter, name, url, headers={"X-Key": SECRET}, contains=right)
    assert found["success"] == 1
    assert (
        probe(exporter, name, url, headers={"X-Key": SECRET}, contains=f'"X-Key": "{SECRET}"')["success"] == 1
    )
    assert site.asked[-1] == f"/echo?key={SECRET}"
    page = exporter.client.get(f"/collectors/{name}").text
    assert f'url="http://127.0.0.1:{site.port}/echo"' in page
    # What a library would tell in its words.
    probe(exporter, name, url, headers={"X-Key": f"{SECRET}\r\nInjected: yes"})
    exporter.error(name)
    for text in (page, exporter.said()):
        assert SECRET not in text
        assert "bob" not in text


def test_a_certificate_has_an_end(exporter: Exporter, certificate: Certificate, name: str):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = certificate.context().wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        port = server.server_address[1]
        found = probe(exporter, name, f"https://127.0.0.1:{port}/")
        assert found["success"] == 1
        assert found["certificate_expiry_seconds"] == certificate.expires.timestamp()
        # It is for another name.
        assert probe(exporter, name, f"https://localhost:{port}/")["success"] == 0
        assert "certificate is not valid for 'localhost'" in exporter.error(name)
        server.shutdown()


def test_what_speaks_no_tls(exporter: Exporter, site: Site, name: str):
    assert probe(exporter, name, f"https://127.0.0.1:{site.port}/ok")["success"] == 0
    assert "cannot be asked: TLS says" in exporter.error(name)
    assert series("probe_success", url=f"https://127.0.0.1:{site.port}/ok") in exporter.scrape(name)
