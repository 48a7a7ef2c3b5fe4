"""What must not matter: order and cutting of files, comments, order of keys, style, the cache."""

import random
from collections.abc import Callable, Mapping

import pytest
import yaml

from gamma_orch.core.canonical import Json, canonical
from gamma_orch.core.leaves import encode
from gamma_orch.spec.load import load
from gamma_orch.spec.resolve import resolve
from tests.spec.kinds import test_registry
from tests.spec.shown import CASES, DEV, DEV_FILE, run, secret_digest, sections

Texts = Mapping[str, bytes]
FAULTLESS = (
    "defaults",
    "metadata",
    "needs",
    "expressions",
    "expressions-leaves",
    "environment",
    "patches",
    "patches-expressions",
)


def files(case: str) -> dict[str, bytes]:
    found = sections((CASES / "resolve" / f"{case}.txt").read_text(encoding="utf-8"))
    found.pop("expected")
    return {DEV_FILE: DEV, **{name: body.encode() for name, body in found.items()}}


def desired(texts: Texts) -> str:
    """Everything wanted, without the places."""
    found, resolution = run(texts)
    assert resolution.desired is not None, found
    return canonical(
        [
            [
                str(r.address),
                encode(r.spec),
                [str(need) for need in r.needs],
                [r.owner, r.description, dict(r.labels), repr(r.lifecycle), str(r.moved_from), r.has_leaves],
            ]
            for r in resolution.desired.resources.values()
        ]
        + [encode(dict(resolution.desired.variables))]
    )


def documents(text: bytes) -> list[str]:
    return [part for part in text.decode().split("---\n") if part.strip()]


def shuffled_documents(texts: Texts, chance: random.Random) -> Texts:
    def shuffle(text: bytes) -> bytes:
        parts = documents(text)
        chance.shuffle(parts)
        return "---\n".join(parts).encode()

    return {name: shuffle(text) for name, text in texts.items()}


def one_file_each(texts: Texts, chance: random.Random) -> Texts:
    cut = {}
    for name, text in texts.items():
        for part in documents(text):
            folder, _, own = name.rpartition("/")
            new = name if name == DEV_FILE else f"{folder}/{chance.randrange(10**9)}/{own}"
            cut[new] = part.encode()
    return cut


def all_in_one(texts: Texts, chance: random.Random) -> Texts:
    joined: dict[str, list[str]] = {}
    for name, text in texts.items():
        folder = (
            "/patches/p.yaml"
            if "/patches/" in name
            else "/own.yaml"
            if name.startswith("environments/dev/")
            else ""
        )
        target = name if name == DEV_FILE else "environments/dev" + folder if folder else "specs/all.yaml"
        joined.setdefault(target, []).extend(documents(text))
    return {name: "---\n".join(parts).encode() for name, parts in joined.items()}


def renamed(texts: Texts, chance: random.Random) -> Texts:
    def new(name: str) -> str:
        folder, _, own = name.rpartition("/")
        return name if name == DEV_FILE else f"{folder}/{chance.randrange(10**9)}-{own}"

    return {new(name): text for name, text in texts.items()}


def commented(texts: Texts, chance: random.Random) -> Texts:
    def comment(text: bytes) -> bytes:
        parts = [f"# before\n\n{part}\n   # after: [" for part in documents(text)]
        return ("\n---  # new\n".join(parts) + "\n...\n# the end\n").encode()

    return {name: comment(text) for name, text in texts.items()}


def other_line_ends(texts: Texts, chance: random.Random) -> Texts:
    return {name: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") for name, text in texts.items()}


def rewritten(texts: Texts, chance: random.Random) -> Texts:
    """The same data in another style, with the keys of all maps in another order."""

    def shuffle(tree: Json) -> Json:
        if isinstance(tree, dict):
            keys = list(tree)
            chance.shuffle(keys)
            return {key: shuffle(tree[key]) for key in keys}
        return [shuffle(item) for item in tree] if isinstance(tree, list) else tree

    done = {}
    for name, text in texts.items():
        trees = [shuffle(document.data) for document in load({name: text}).documents.items]
        style = chance.choice([True, False, None])
        done[name] = yaml.safe_dump_all(
            trees, sort_keys=False, default_flow_style=style, width=20, allow_unicode=True, line_break="\n"
        ).encode()
    return done


CHANGES: tuple[Callable[[Texts, random.Random], Texts], ...] = (
    shuffled_documents,
    one_file_each,
    all_in_one,
    renamed,
    commented,
    other_line_ends,
    rewritten,
)


@pytest.mark.parametrize("case", FAULTLESS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_it_does_not_matter(case: str, change: Callable[[Texts, random.Random], Texts]) -> None:
    texts = files(case)
    for seed in range(3):
        assert desired(change(texts, random.Random(seed))) == desired(texts)


@pytest.mark.parametrize("case", [path.stem for path in sorted((CASES / "resolve").glob("*.txt"))])
def test_the_order_of_a_mapping_and_the_cache_do_not_matter(case: str) -> None:
    texts = files(case)
    first = load(texts)
    second = load(dict(reversed(list(texts.items()))), first.parsed)
    assert second.documents.items == first.documents.items
    assert second.diagnostics == first.diagnostics
    one, other = (resolve(x.documents, "dev", test_registry(), secret_digest) for x in (first, second))
    assert one.diagnostics == other.diagnostics
    assert (one.desired is None) == (other.desired is None)
    if one.desired is not None and other.desired is not None:
        assert one.desired.resources == other.desired.resources
        assert list(one.desired.resources) == sorted(one.desired.resources)


def test_data_of_documents_is_never_changed() -> None:
    for case in FAULTLESS:
        loaded = load(files(case))
        before = canonical([document.data for document in loaded.documents.items])
        resolve(loaded.documents, "dev", test_registry(), secret_digest)
        assert canonical([document.data for document in loaded.documents.items]) == before


def test_a_resource_has_its_place_and_knows_of_its_leaves() -> None:
    _, resolution = run(files("expressions-leaves"))
    assert resolution.desired is not None
    by_name = {str(address): resource for address, resource in resolution.desired.resources.items()}
    assert by_name["Item/b"].has_leaves
    assert not by_name["Item/a"].has_leaves
    assert str(by_name["Item/b"].span) == "specs/a.yaml:6:1"
