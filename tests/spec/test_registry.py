"""Where kinds come from."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from gamma_orch.spec.codes import Code
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.load import load
from gamma_orch.spec.registry import KindUnavailable, Registry, registry
from gamma_orch.spec.resolve import resolve
from tests.spec.kinds import BOX, ITEM
from tests.spec.shown import DEV, DEV_FILE, secret_digest


def test_plugins_by_module_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMA_PLUGINS", " tests.spec.kinds , ")
    assert {"Item", "Box"} <= set(registry().names())
    assert registry().get("Item") is ITEM
    assert registry("").get("Item") is None


def test_entry_points_are_loaded_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(group: str) -> Any:
        assert group == "gamma_orch.kinds"
        return (
            EntryPoint("Item", "tests.spec.kinds:ITEM", group),
            EntryPoint("Lost", "no.such.module:KIND", group),
        )

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    found = registry("")
    assert found.names() == ["Item", "Lost"]
    assert found.get("Item") is found.get("Item") is ITEM
    with pytest.raises(
        KindUnavailable, match="Lost is installed but cannot be imported: ModuleNotFoundError"
    ):
        found.get("Lost")
    with pytest.raises(KindUnavailable):
        found.all()


def test_each_loader_is_called_once() -> None:
    calls = []

    def loader() -> Kind:
        calls.append(1)
        return ITEM

    found = Registry({"Item": loader, "Box": BOX})
    assert found.all() == [BOX, ITEM]
    assert found.all() == [BOX, ITEM]
    assert calls == [1]


def _no_kind() -> Any:
    return "something"


def test_an_entry_point_that_is_no_kind() -> None:
    with pytest.raises(KindUnavailable, match="is not a gamma_orch"):
        Registry({"Item": _no_kind}).get("Item")


def test_a_plugin_module_that_is_not_there() -> None:
    with pytest.raises(KindUnavailable, match="no_such_module of GAMMA_PLUGINS"):
        registry("no_such_module")
    with pytest.raises(KindUnavailable, match="KINDS"):
        registry("tests.spec.shown")


def test_a_document_of_a_kind_that_cannot_be_imported() -> None:
    def broken() -> Kind:
        raise ImportError("no torch here")

    text = b"apiVersion: gamma/v1\nkind: Item\nmetadata: {name: a}\nspec: {x: '${Item/b.url}'}\n"
    both = text + b"---\n" + text.replace(b"name: a", b"name: b")
    found = resolve(
        load({DEV_FILE: DEV, "specs/a.yaml": both}).documents,
        "dev",
        Registry({"Item": broken}),
        secret_digest,
    )
    assert found.desired is None
    assert [(d.code, d.span and d.span.line) for d in found.diagnostics] == [
        (Code.PLUGIN, 2),
        (Code.PLUGIN, 7),
    ]
    assert "no torch here" in found.diagnostics[0].message
