"""Limits, bombs and the cache of `load`. What texts mean is in cases/load."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gamma_orch.core.diagnostic import Span
from gamma_orch.spec import cache
from gamma_orch.spec.careful import MAX_PROBLEMS
from gamma_orch.spec.codes import Code
from gamma_orch.spec.load import MAX_BYTES, MAX_DOCUMENTS, load


def codes(content: bytes) -> list[str]:
    return [str(diagnostic.code) for diagnostic in load({"f": content}).diagnostics]


def test_a_file_larger_than_the_limit() -> None:
    assert codes(b"a: " + b"x" * (MAX_BYTES - 3)) == []
    assert codes(b"a: " + b"x" * (MAX_BYTES - 2)) == [Code.TOO_LARGE]


def test_too_many_documents() -> None:
    assert codes(b"---\na: 1\n" * MAX_DOCUMENTS) == []
    assert codes(b"---\na: 1\n" * (MAX_DOCUMENTS + 1)) == [Code.TOO_MANY_DOCUMENTS]


def test_problems_without_end() -> None:
    found = load({"f": b"a: &x 1\n" * 200}).diagnostics
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1].code == Code.MORE


BOMBS = {
    "lists": b"[" * 500_000,
    "maps": b"{" * 500_000,
    "lists in a value": b"a: " + b"[" * 500_000,
    "block lists": b"- " * 500_000,
    "complex keys": b"? " * 500_000,
    "flow pairs": b"[a: " * 200_000,
    "flow maps": b"{a: " * 200_000,
    "flat list": b"a: [" + b"x," * 500_000 + b"]",
    "flat map": b"a: {" + b"".join(b"k%d: 1," % i for i in range(80_000)) + b"}",
    "one key again and again": b"a:\n" * 340_000,
    "many keys": b"".join(b"k%d: v\n" % i for i in range(90_000)),
    "a long word": b"a: " + b"x" * 1_000_000,
    "a long number": b"a: " + b"9" * 1_000_000,
    "a long fraction": b"a: 0." + b"9" * 1_000_000,
    "a long exponent": b"a: 1e" + b"9" * 1_000_000,
    "a long key": b"x" * 1_000_000 + b": 1",
    "a long quoted key": b'"' + b"x" * 1_000_000 + b'": 1',
    "comments": b"#" * 1_000_000,
    "blank": b" " * 1_000_000,
    "line ends": b"\n" * 1_000_000,
    "quotes": b"'" * 1_000_000,
    "an open quote": b'a: "' + b"x\n" * 500_000,
    "markers": b"---\n" * 250_000,
    "anchors": b"&a " * 300_000,
    "tags": b"!" * 1_000_000,
    "expressions": b"a: " + b"${" * 500_000,
    "deep indentation": b"".join(b" " * i + b"a:\n" for i in range(1_400)),
    "block text": b"a: |\n" + b"  x\n" * 250_000,
    "escapes": b'a: "' + b"\\x41" * 250_000 + b'"',
    "flow to the end": b"a: [" + b"{b: [" * 15,
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_text_takes_long(name: str) -> None:
    before = time.process_time()
    load({"f": BOMBS[name]})
    assert time.process_time() - before < 2, name


def test_bombs_fit_into_memory() -> None:
    program = (
        "from pathlib import Path\n"
        "from tests.spec.test_load import BOMBS\n"
        "from gamma_orch.spec.load import load\n"
        "for content in BOMBS.values(): load({'f': content})\n"
        # Not ru_maxrss: a process that was forked from a large one has that one's size as its own.
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) // 1024 < 500


TEXTS = {
    "b.yaml": b"b: ${x}\n---\nc: 1.5\n",
    "a.yaml": b"\xef\xbb\xbfa: [1, null, true, 'x']\n",
    "bad.yaml": b"a: [\n",
}


def test_documents_come_in_the_order_of_files_and_lines() -> None:
    loaded = load(TEXTS)
    assert [(d.file, d.line, d.dynamic) for d in loaded.documents.items] == [
        ("a.yaml", 1, False),
        ("b.yaml", 1, True),
        ("b.yaml", 3, False),
    ]


def test_a_cache_changes_nothing(tmp_path: Path) -> None:
    first = load(TEXTS)
    assert set(first.parsed) == {hashlib.sha256(TEXTS[name]).hexdigest() for name in ("a.yaml", "b.yaml")}
    cache.write(tmp_path, "1.0", {}, first.parsed)
    known = cache.read(tmp_path, "1.0")
    second = load(TEXTS, known)
    assert second.documents.items == first.documents.items
    assert second.diagnostics == first.diagnostics
    assert second.parsed.keys() == first.parsed.keys()
    assert all(type(d.data) is dict for d in second.documents.items)
    (_, with_place, _) = second.documents.items
    assert second.documents.span(with_place, ("b",)) == Span("b.yaml", 1, 4)


def test_a_warm_cache_needs_no_yaml_and_no_pydantic(tmp_path: Path) -> None:
    cache.write(tmp_path, "1", {}, load({"a": TEXTS["a.yaml"]}).parsed)
    program = (
        "import sys\n"
        "from gamma_orch.spec import cache\n"
        "from gamma_orch.spec.load import load\n"
        f"known = cache.read({str(tmp_path)!r}, '1')\n"
        f"assert load({{'a': {TEXTS['a.yaml']!r}}}, known).documents.items\n"
        "assert not {'yaml', 'pydantic'} & set(sys.modules), sys.modules\n"
        "load({'a': b'new: 1'}, known)\n"
        "assert 'yaml' in sys.modules and 'pydantic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True)


def test_a_cache_that_is_not_ours_is_no_cache(tmp_path: Path) -> None:
    assert cache.read(tmp_path, "1") == {}
    cache.write(tmp_path, "1", {}, {"x": [(1, False, {"a": 1})]})
    (file,) = tmp_path.iterdir()
    good, changed = file.read_bytes(), file.stat().st_mtime_ns

    def put(content: bytes, when: int = changed) -> None:
        file.write_bytes(content)
        os.utime(file, ns=(when, when))

    put(good)
    assert cache.read(tmp_path, "1")["x"] == json.loads('[[1, false, {"a": 1}]]')
    assert cache.read(tmp_path, "2") == {}
    for broken in (good[:-1], good + b" ", b"", b"\n", good.replace(b'"a"', b'"b"'), b"{}"):
        put(broken)
        assert cache.read(tmp_path, "1") == {}
    put(cache._head("1", changed, b"not json") + b"\nnot json")
    assert cache.read(tmp_path, "1") == {}
    put(good, changed + 1)  # as after a checkout
    assert cache.read(tmp_path, "1") == {}


def test_a_cache_is_written_only_when_there_is_news(tmp_path: Path) -> None:
    one, two, three = ({name: [(1, False, {"a": 1})]} for name in "xyz")
    cache.write(tmp_path, "1", {**one, **two}, one)
    assert not list(tmp_path.iterdir())
    cache.write(tmp_path / "new" / "folder", "1", one, two)
    assert cache.read(tmp_path / "new" / "folder", "1").keys() == {"x", "y"}
    # What only others need is dropped once it outgrows what is needed now.
    cache.write(tmp_path, "1", {**one, **two}, three)
    assert cache.read(tmp_path, "1").keys() == {"z"}
    assert [path.name for path in tmp_path.glob("documents*")] == ["documents.json"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache.write(tmp_path / "file", "1", {}, {"x": []})
    (tmp_path / "there" / "documents.json").mkdir(parents=True)
    cache.write(tmp_path / "there", "1", {}, {"x": []})
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["documents.json"]


def test_the_cache_is_json(tmp_path: Path) -> None:
    cache.write(tmp_path, "1", {}, load(TEXTS).parsed)
    head, body = (tmp_path / "documents.json").read_bytes().split(b"\n", 1)
    assert head.startswith(b"gamma 1 documents")
    assert all(entries for entries in json.loads(body).values())
