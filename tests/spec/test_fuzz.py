"""Any bytes give diagnostics or resources: never an exception, never long, never much memory.

Two sources: seed documents mutated by a seeded generator (bytes flipped, cut, repeated, spliced with
the language's own tokens), and trees made by hypothesis. GAMMA_FUZZ sets the number of mutants; a
failure names the seed, and `mutant(seed)` makes the text again.
"""

import os
import random
import time
from functools import cache
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.canonical import Json, canonical
from gamma_orch.core.leaves import encode
from gamma_orch.spec.load import load
from tests.spec.shown import CASES, DEV, DEV_FILE, diagnostics_shown, run, sections

COUNT = int(os.environ.get("GAMMA_FUZZ", "500"))
SECONDS = 2.0
MEGABYTES = 500

TOKENS = (
    b"---\n", b"...\n", b"- ", b": ", b":\n", b"? ", b"[", b"]", b"{", b"}", b",", b"&a ", b"*a", b"!t ",
    b"<<: ", b"%YAML 1.2\n", b"|\n", b">-\n", b"'", b'"', b"\\", b"\\u0000", b"\\x1b", b"#", b" #", b"\t",
    b"\r", b"\r\n", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc2\x85", b"\xc2\xa0", b"\xe2\x80\x8b", b"null",
    b"~", b"true", b"010", b".nan", b"1e999", b"9" * 30, b"0x", b"-", b"${", b"$${", b"${var.x}",
    b"${secret.x}", b"${env.name}", b"${Item/a.url}", b"${Item/", b"spec", b"metadata", b"name",
    b"kind: Item\n", b"kind: Box\n", b"spec: null\n", b"apiVersion: gamma/v1\n", b"lifecycle: {ignore: ['",
    b"dependsOn: [Item/a]", b"moved: {from: Item/a}", b"$ref", b"\xf0\x9f\x8e\x89", b" " * 40,
)  # fmt: skip


@cache
def seeds() -> tuple[dict[str, bytes], ...]:
    """The projects of the resolve cases, and each load case as a file of a project."""
    found = []
    for path in sorted((CASES / "resolve").glob("*.txt")):
        project = sections(path.read_text(encoding="utf-8"))
        project.pop("expected")
        found.append({DEV_FILE: DEV, **{name: body.encode() for name, body in project.items()}})
    found += [
        {DEV_FILE: DEV, "specs/a.yaml": path.read_bytes()} for path in sorted((CASES / "load").glob("*.yaml"))
    ]
    return tuple(found)


def mutant(seed: int) -> dict[str, bytes]:
    """A project with one to six mutations in its files."""
    chance = random.Random(seed)
    project = dict(chance.choice(seeds()))
    for _ in range(chance.randint(1, 6)):
        name = chance.choice(sorted(project))
        project[name] = mutated(bytearray(project[name]), chance)
    return project


def mutated(text: bytearray, chance: random.Random) -> bytes:
    at = chance.randint(0, len(text))
    end = min(len(text), at + chance.randint(0, 30))
    match chance.randrange(9):
        case 0 if at < len(text):
            text[at] ^= 1 << chance.randrange(8)
        case 1:
            del text[at:]
        case 2:
            del text[at:end]
        case 3:
            text[at:at] = chance.choice(TOKENS)
        case 4:
            text[at:end] = chance.choice(TOKENS)
        case 5:
            text[at:at] = text[at:end] * chance.choice((1, 2, 50))
        case 6:
            lines = text.splitlines(keepends=True) or [bytearray()]
            line = chance.randrange(len(lines))
            lines[line:line] = [lines[chance.randrange(len(lines))]] * chance.choice((1, 1, 3))
            text = bytearray().join(lines)
        case 7:
            other = chance.choice(sorted(chance.choice(seeds()).items()))[1]
            cut = chance.randint(0, len(other))
            text[at:end] = other[cut : cut + chance.randint(0, 200)]
        case _:
            text[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 4)))
    return bytes(text)


def check(project: dict[str, bytes]) -> None:
    before = time.process_time()
    found, resolution = run(project)
    # What is shown is always text of whole sentences, and never what a terminal would obey.
    shown = diagnostics_shown(found)
    assert all(character.isprintable() or character == "\n" for character in shown), shown
    for diagnostic in found:
        assert diagnostic.message.endswith(".")
        assert diagnostic.span is not None
        line_count = project.get(diagnostic.span.file, b"").decode("utf-8", "replace").count("\n") + 1
        assert 0 <= diagnostic.span.line <= line_count
    if resolution.desired is not None:
        for resource in resolution.desired.resources.values():
            canonical(encode(resource.spec))
    assert time.process_time() - before < SECONDS


def megabytes(what: str) -> int:
    """VmRSS or VmHWM, its peak, of this process."""
    return int(Path("/proc/self/status").read_text().split(f"{what}:")[1].split()[0]) // 1024


def test_mutants() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now: other tests import more
    before = megabytes("VmRSS")
    for seed in range(COUNT):
        try:
            check(mutant(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}: {mutant(seed)!r}")
            raise
    assert megabytes("VmHWM") - before < MEGABYTES


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["a", "Item/a", "${var.x}", "${Item/a.url}", "${secret.s}", "${env.name}x", "${", "red"]
    )
)
KEYS = st.text(max_size=8) | st.sampled_from(
    [
        "name",
        "size",
        "colour",
        "after",
        "items",
        "columns",
        "labels",
        "weight",
        "lifecycle",
        "dependsOn",
        "ignore",
        "moved",
        "from",
        "byLabel",
    ]
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "apiVersion": st.just("gamma/v1"),
        "kind": st.sampled_from(["Item", "Box", "Environment"]),
        "metadata": st.fixed_dictionaries({"name": st.sampled_from(["a", "b", "dev"])}) | TREES,
    },
    optional={"spec": st.dictionaries(KEYS, TREES, max_size=5) | TREES},
)


@given(
    st.lists(DOCUMENTS | TREES, max_size=4),
    st.sampled_from(["specs/a.yaml", "environments/dev/a.yaml", "environments/dev/patches/a.yaml", DEV_FILE]),
)
def test_any_tree(trees: list[Json], file: str) -> None:
    text = yaml.safe_dump_all(trees, allow_unicode=True).encode("utf-8", "surrogatepass")
    item = b"apiVersion: gamma/v1\nkind: Item\nmetadata: {name: a}\nspec: {size: 1}\n"
    check({DEV_FILE: DEV, "specs/base.yaml": item, file: text})


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    check({DEV_FILE: DEV, "specs/a.yaml": content})


@given(TREES)
def test_what_is_loaded_is_what_was_written(tree: Json) -> None:
    """Against a second opinion: our reading of a text agrees with PyYAML's, where both have one."""
    text = yaml.safe_dump({"a": tree}).encode()
    loaded = load({"f": text})
    if not loaded.diagnostics:
        (document,) = loaded.documents.items
        assert document.data == {"a": tree}
