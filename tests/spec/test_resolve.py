"""`resolve` beyond the table of cases: size, hints that stop, what kinds report, what is promised."""

import time
from collections.abc import Iterable, Mapping, Sequence

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.diagnostic import Diagnostic, Severity, Span
from gamma_orch.core.resource import Resource
from gamma_orch.spec.codes import Code
from gamma_orch.spec.environment import EnvironmentSpec, SecretSource, default_source
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.load import load
from gamma_orch.spec.positions import Documents
from gamma_orch.spec.registry import Registry
from gamma_orch.spec.resolve import Desired, Resolution, resolve
from tests.spec.kinds import BOX, ItemSpec, no_provider, test_registry
from tests.spec.shown import DEV, DEV_FILE, run, secret_digest

ITEM = "apiVersion: gamma/v1\nkind: Item\nmetadata: {name: %s}\nspec: {size: 1%s}\n"


def items(count: int, after: str) -> dict[str, bytes]:
    """Items i0, i1, …; `after` is a template for the name of what each follows."""
    documents = [ITEM % (f"i{n}", f", after: {after.format(n=n, before=n - 1)}") for n in range(1, count)]
    documents.append(ITEM % ("i0", ""))
    chunks = {f"specs/{n}.yaml": "---\n".join(documents[n : n + 500]).encode() for n in range(0, count, 500)}
    return {DEV_FILE: DEV, **chunks}


def test_a_chain_of_ten_thousand() -> None:
    loaded = load(items(10_000, "i{before}"))
    before = time.process_time()
    resolution = resolve(
        load(items(10_000, "i{before}"), loaded.parsed).documents, "dev", test_registry(), secret_digest
    )
    # Measured: 0.2 s. The bound is for a slow machine that does other things as well.
    assert time.process_time() - before < 2
    assert resolution.desired is not None
    assert len(resolution.desired.resources) == 10_000


def test_a_circle_of_ten_thousand_is_shown_in_short() -> None:
    texts = items(10_000, "i{before}")
    texts["specs/0.yaml"] = texts["specs/0.yaml"].replace(b"after: i0}", b"after: i9999}")
    found, _ = run(texts)
    assert [d.code for d in found] == [Code.CYCLE]
    assert "9,9" in found[0].message
    assert len(found[0].message) < 1500


def test_hints_stop_before_they_cost_minutes() -> None:
    before = time.process_time()
    found, _ = run(items(5_000, "lost-{n}"))
    assert len(found) == 4_999
    assert found[0].code == Code.REFERENCE
    assert time.process_time() - before < 30


def test_an_unknown_environment() -> None:
    resolution = resolve(Documents(), "prd", test_registry(), secret_digest, ("dev", "prod"))
    (found,) = resolution.diagnostics
    assert (found.code, found.hint) == (Code.ENVIRONMENT, "did you mean 'prod'?")
    assert found.span == Span("environments/prd/environment.yaml")
    assert resolution == Resolution(None, (found,))


def test_one_load_serves_all_environments() -> None:
    texts = {
        DEV_FILE: DEV,
        "environments/prod/environment.yaml": DEV.replace(b"dev", b"prod"),
        "environments/prod/own.yaml": (ITEM % ("b", "")).encode(),
        "environments/prod/release.yaml": b"anything: at all\n",
        "environments/devel/patches/p.yaml": (ITEM % ("zzz", "")).encode(),
        "specs/a.yaml": (ITEM % ("a", "")).encode(),
    }
    documents = load(texts).documents
    for environment, wanted in {"dev": ["Item/a"], "prod": ["Item/a", "Item/b"]}.items():
        desired = resolve(documents, environment, test_registry(), secret_digest).desired
        assert desired is not None
        assert list(map(str, desired.resources)) == wanted


def test_nothing_at_all_is_wanted() -> None:
    found, resolution = run({})
    assert not found
    assert resolution.desired is not None
    assert not resolution.desired.resources
    assert resolution.desired.environment == EnvironmentSpec()


def test_what_is_desired_cannot_be_changed() -> None:
    _, resolution = run({"specs/a.yaml": (ITEM % ("a", "")).encode()})
    desired = resolution.desired
    assert desired is not None
    with pytest.raises(TypeError):
        desired.resources[Address("Item", "b")] = desired.resources[Address("Item", "a")]  # type: ignore[index]
    with pytest.raises(AttributeError):
        desired.name = "prod"  # type: ignore[misc]
    assert Desired("dev", EnvironmentSpec(), {}).locate(Address("Item", "a")) == Span("")


def checking(*diagnostics: Diagnostic) -> Registry:
    def check(own: Sequence[Resource], everything: Mapping[Address, Resource]) -> Iterable[Diagnostic]:
        assert all(resource.address in everything for resource in own)
        return diagnostics

    return Registry({"Item": Kind("Item", "t", "s", ItemSpec, no_provider, check=check), "Box": BOX})


def test_what_a_kind_reports_gets_its_place() -> None:
    a = Address("Item", "a")
    given = Span("elsewhere", 1, 1)
    registry = checking(
        Diagnostic("X1", "With a path inside the spec.", path=("size",), address=a),
        Diagnostic("X2", "With a whole path.", path=("metadata", "name"), address=a),
        Diagnostic("X3", "With a place of its own.", given, address=a),
        Diagnostic("X4", "About nothing in particular."),
        Diagnostic("X5", "A warning.", address=a, severity=Severity.WARNING),
        Diagnostic("X6", "About something unknown.", address=Address("Item", "zzz")),
    )
    loaded = load({DEV_FILE: DEV, "specs/a.yaml": (ITEM % ("a", "")).encode()})
    resolution = resolve(loaded.documents, "dev", registry, secret_digest)
    assert resolution.desired is None
    assert {d.code: (d.span, d.path) for d in resolution.diagnostics} == {
        "X1": (Span("specs/a.yaml", 4, 14), ("spec", "size")),
        "X2": (Span("specs/a.yaml", 3, 18), ("metadata", "name")),
        "X3": (given, ()),
        "X4": (None, ()),
        "X5": (Span("specs/a.yaml", 1, 1), ()),
        "X6": (Span(""), ()),
    }


def test_nothing_is_wanted_while_a_document_cannot_be_read() -> None:
    texts = {"specs/a.yaml": (ITEM % ("a", "")).encode(), "specs/b.yaml": b"a: [\n"}
    found, resolution = run(texts)
    assert [d.code for d in found] == [Code.SYNTAX]
    assert resolution == Resolution(None, ())


def test_a_warning_stops_nothing() -> None:
    registry = checking(Diagnostic("X5", "A warning.", severity=Severity.WARNING))
    loaded = load({DEV_FILE: DEV, "specs/a.yaml": (ITEM % ("a", "")).encode()})
    resolution = resolve(loaded.documents, "dev", registry, secret_digest)
    assert resolution.desired is not None
    assert len(resolution.diagnostics) == 1


def test_an_output_of_a_kind_that_is_not_there() -> None:
    # The document of the unknown kind is reported; that somebody refers to it is not.
    text = ITEM % ("a", ", colour: '${Thing/x.url}'")
    thing = "apiVersion: gamma/v1\nkind: Thing\nmetadata: {name: x}\n"
    found, _ = run({"specs/a.yaml": f"{text}---\n{thing}".encode()})
    assert [d.code for d in found] == [Code.KIND]


def test_secrets_are_asked_for_once_and_with_their_source() -> None:
    asked: list[tuple[str, SecretSource]] = []

    def digest(name: str, source: SecretSource) -> str:
        asked.append((name, source))
        return "d"

    environment = DEV + b"spec: {secrets: {pw: {file: 'x-${env.name}'}}}\n"
    spec = b"{anything: ['${secret.pw}', '${secret.pw}', '${secret.a-b.c}']}"
    box = b"apiVersion: gamma/v1\nkind: Box\nmetadata: {name: a}\nspec: " + spec
    resolution = resolve(
        load({DEV_FILE: environment, "specs/a.yaml": box}).documents, "dev", test_registry(), digest
    )
    assert resolution.desired is not None
    assert asked == [("pw", SecretSource(file="x-dev")), ("a-b.c", SecretSource(env="GAMMA_SECRET_A_B_C"))]
    assert default_source("pw") == SecretSource(env="GAMMA_SECRET_PW")


def test_a_secret_that_is_not_used_is_not_read() -> None:
    environment = DEV + b"spec: {secrets: {unreadable: {env: X}}}\n"
    found, resolution = run({DEV_FILE: environment})
    assert not found
    assert resolution.desired is not None


def test_without_an_environment_its_expressions_are_not_complained_about_twice() -> None:
    loaded = load({"specs/a.yaml": (ITEM % ("a", ", colour: '${var.x}'")).encode()})
    resolution = resolve(loaded.documents, "dev", test_registry(), secret_digest)
    assert [str(d.code) for d in resolution.diagnostics] == [Code.ENVIRONMENT]
