"""The configuration of nginx: golden files, which nginx takes; and no value of a spec begins a directive."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.app.bundle import Bundle, Model, Process, Version
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.serving.proxy import Proxy, rendered
from gamma_orch.targets.nginx import Missing, Nginx, program
from tests.spec.shown import compare

GOLDEN = Path(__file__).parents[2] / "golden" / "serving"
ONE = Proxy("/srv/shop/nginx", ("/srv/shop/replicas/1.sock",))
MANY = Proxy(
    "/srv/shop/nginx",
    ("/srv/shop/replicas/1.sock", "/srv/shop/replicas/2.sock"),
    others=("10.0.0.2:8000", "10.0.0.3:8000"),
    connections=20_000,
    user="root",
)


def bundle(**process: Any) -> Bundle:
    version = Version(digest="0" * 64, folder="/models/a", files={})
    models = {
        "quick": Model(task="embeddings", versions=(version,), deadline=2.0),
        "slow": Model(task="text-generation", versions=(version,), deadline=120.0),
    }
    return Bundle(service="api", models=models, process=Process(**{"port": 8000, "drain": 0.2, **process}))


@pytest.mark.parametrize(
    ("name", "proxy", "given"),
    [
        ("one", ONE, bundle(trusted=("unix",), drain=0.0)),
        (
            "many",
            MANY,
            bundle(
                trusted=("unix", "10.0.0.0/8", "2001:db8::/32"), host="10.0.0.1", body=20_000_000, drain=30
            ),
        ),
    ],
)
def test_a_configuration(name: str, proxy: Proxy, given: Bundle) -> None:
    text, digest = rendered(proxy, given)
    golden = GOLDEN / f"nginx-{name}.conf"
    compare(golden, text, golden.read_text() if golden.exists() else "", text)
    assert text.count(digest) == 1
    assert rendered(proxy, given) == (text, digest)


@pytest.mark.parametrize(
    "changed",
    [
        replace(MANY, replicas=MANY.replicas[:1]),
        replace(MANY, others=MANY.others[:1]),
        replace(MANY, connections=64),
        replace(MANY, user=""),
    ],
)
def test_what_changes_the_text_changes_its_digest(changed: Proxy) -> None:
    assert rendered(changed, bundle())[1] != rendered(MANY, bundle())[1]


def test_bounds_are_those_of_the_bundle() -> None:
    lines = [line.strip() for line in rendered(ONE, bundle(body=123_456, keep_alive=33.0))[0].splitlines()]
    assert "client_max_body_size 123456;" in lines
    assert "keepalive_timeout 33s;" in lines
    assert "proxy_read_timeout 150s;" in lines  # the longest deadline, and what a worker's restart takes
    assert "worker_shutdown_timeout 1s;" in lines  # 0 would be: for ever


HOSTILE = ["a b", "a;b", "a}", "a{", "a\nb", "a'b", 'a"b', "$host", "a#b", "a\\b", ""]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_begins_a_directive(text: str) -> None:
    for proxy in (replace(ONE, others=(text,)), replace(ONE, user=text)):
        if text or proxy.others:
            with pytest.raises(Permanent, match="cannot stand in the configuration of nginx"):
                rendered(proxy, bundle())
    with pytest.raises(Permanent):
        rendered(ONE, bundle(host=text))


@pytest.mark.parametrize("text", ["/a'b", "/a\\b", "/a$b", "/a\nb"])
def test_a_path_that_nginx_would_misread_is_refused(text: str) -> None:
    for proxy in (replace(ONE, folder=text), replace(ONE, replicas=(text,))):
        with pytest.raises(Permanent, match="Move the project"):
            rendered(proxy, bundle())


def is_missing() -> bool:
    try:
        return not program()
    except Missing:
        return True


with_nginx = pytest.mark.skipif(is_missing(), reason="nginx is not on this machine")


@with_nginx
@pytest.mark.parametrize("proxy", [ONE, MANY])
def test_nginx_takes_it(proxy: Proxy, request: pytest.FixtureRequest) -> None:
    short = Path(tempfile.mkdtemp())  # the path of a socket has 107 bytes at most
    request.addfinalizer(lambda: shutil.rmtree(short))
    folder = short / "a place; with {odd} #1 signs"
    odd = replace(proxy, folder=str(folder), replicas=(f"{folder}/1.sock",), user="")
    Nginx(folder).check(rendered(odd, bundle(port=8999, trusted=("unix", "10.0.0.0/8")))[0])
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["nginx.pid"]


@with_nginx
def test_what_nginx_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    nginx = Nginx(tmp_path / "nginx")
    nginx.install("# the one before\n")
    with pytest.raises(Permanent, match=r"the one before stays in force.*\n.*unknown directive \"listn\""):
        nginx.check("daemon off;\nevents {}\nhttp { server { listn 1; } }\n")
    assert nginx.text() == "# the one before\n"


def test_a_machine_without_nginx_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(Missing, match="apt-get install --no-install-recommends nginx-light"):
        program()
