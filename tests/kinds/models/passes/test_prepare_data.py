"""Rows from files: what is picked, cleaned and split, and what is said of a file that is not right."""

import csv
import io
import json
import random
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import prepare_data, rows, splits

Rows = dict[str, list[dict[str, Any]]]
MAP = {"map": {"0": "negative", "1": "positive"}}
SPLITS = {"test": 0.2, "validation": 0.1}


class Bench:
    """One raw file, prepared as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw = folder / "raw"
        self.raw.mkdir()
        self.count = 0
        self.facts: Any = None

    def put(self, name: str, content: str | bytes) -> None:
        for old in self.raw.iterdir():
            old.unlink()
        (self.raw / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def csv(self, made: Iterable[Mapping[str, Any]]) -> None:
        made = list(made)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
        self.put("raw.csv", text.getvalue())

    def run(self, **params: Any) -> Rows:
        self.count += 1
        out, work = self.folder / f"out{self.count}", self.folder / "work"
        out.mkdir()
        work.mkdir(exist_ok=True)
        full = {"splits": SPLITS, "seed": "salt", **params}
        self.facts = prepare_data.run(Job(full, {"raw": self.raw}, out, work, 1, lambda _text, _part: None))
        assert not list(work.iterdir()), "the spool is left behind"
        self.out = out
        return {
            path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            for path in out.iterdir()
        }

    def wrong(self, **params: Any) -> str:
        with pytest.raises(Permanent) as caught:
            self.run(**params)
        return str(caught.value)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def reviews(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    words = ["a", "fine", "film", "that", "nobody", "should", "miss", "or", "see", "twice", "for", "tea"]
    return [
        {
            "text": " ".join(rng.choices(words, k=8)) + f" {seed}-{i}",
            "label": i % 2,
            "source": "imdb" if i % 3 else "rt",
        }
        for i in range(count)
    ]


def where(found: Rows) -> dict[str, str]:
    return {row["text"]: name for name, listed in found.items() for row in listed}


# --- splits -------------------------------------------------------------------------------------------


def test_shares_and_facts(bench: Bench) -> None:
    bench.csv(reviews(4000))
    found = bench.run(labels=MAP)
    assert bench.facts["rows"] == {name: len(listed) for name, listed in found.items()}
    assert abs(len(found["test"]) - 800) < 80
    assert abs(len(found["validation"]) - 400) < 60
    assert sum(map(len, found.values())) == 4000
    assert set(bench.facts["labels"]["train"]) == {"negative", "positive"}
    for listed in found.values():
        assert listed == sorted(listed, key=lambda row: row["id"])
        assert all(set(row) == {"id", "text", "label"} and len(row["id"]) == 16 for row in listed)
    lengths = sorted(len(row["text"]) for listed in found.values() for row in listed)
    assert bench.facts["characters"]["max"] == lengths[-1]
    assert bench.facts["characters"]["p50"] == lengths[len(lengths) // 2 - 1]
    assert bench.facts["words"]["p50"] == 9


def test_a_rows_split_is_the_formula(bench: Bench) -> None:
    import hashlib

    bench.csv(reviews(200))
    for text, name in where(bench.run()).items():
        digest = hashlib.sha256(("salt" + text.casefold()).encode()).hexdigest()
        u = int(digest[:8], 16) / 2**32
        assert name == ("test" if u < 0.2 else "validation" if u < 0.2 + 0.1 else "train")


def test_no_row_moves_when_others_come_go_or_change_places(bench: Bench) -> None:
    made = reviews(600)
    bench.csv(made)
    before = where(bench.run())
    first = {path.name: path.read_bytes() for path in bench.out.iterdir()}
    bench.csv(made[::-1])
    bench.run()
    assert {path.name: path.read_bytes() for path in bench.out.iterdir()} == first
    bench.csv(reviews(300, seed=9) + made[100:])
    after = where(bench.run())
    assert all(after[text] == before[text] for text in before.keys() & after.keys())
    bench.csv(made)
    assert where(bench.run(splits={"validation": 0.1, "test": 0.2})) == before
    # Another share for validation never touches the test split.
    other = where(bench.run(splits={"test": 0.2, "validation": 0.3}))
    assert {text for text in other if other[text] == "test"} == {t for t in before if before[t] == "test"}
    assert where(bench.run(seed="another")) != before


def test_a_smaller_limit_is_part_of_a_larger_one(bench: Bench) -> None:
    bench.csv(reviews(900))
    everything = where(bench.run())
    larger: dict[str, str] = everything
    for limit in (900, 500, 123, 60, 30, 20):
        found = where(bench.run(limit=limit))
        assert limit - 3 <= len(found) <= limit
        assert found.items() <= larger.items()
        larger = found
    assert splits.quotas({"train": 700, "test": 200}, 32) == {"train": 24, "test": 7}


@pytest.mark.parametrize(
    "sizes", [{"a": 7, "b": 1, "c": 2}, {"a": 333, "b": 334, "c": 333}, {"a": 5, "b": 0}]
)
def test_quotas_only_grow_with_the_limit(sizes: dict[str, int]) -> None:
    before = dict.fromkeys(sizes, 0)
    for limit in range(3, sum(sizes.values()) + 2):
        now = splits.quotas(sizes, limit)
        assert all(before[name] <= now[name] <= sizes[name] for name in sizes)
        assert sum(now.values()) <= limit
        before = now
    assert before == sizes


def test_equal_texts_are_in_one_split(bench: Bench) -> None:
    made = reviews(100)
    twins = [{**row, "text": f"  {row['text'].upper()}\t"} for row in made]
    bench.csv(made + twins)
    found = bench.run(clean={"dropDuplicates": False})
    sides: dict[str, set[str]] = {}
    for text, name in where(found).items():
        sides.setdefault(splits.normalised(text), set()).add(name)
    assert len(sides) == 100
    assert all(len(names) == 1 for names in sides.values())
    assert sum(map(len, found.values())) == 200


def test_rows_of_one_group_stay_together(bench: Bench) -> None:
    bench.csv({**row, "film": f"Film {i // 10}"} for i, row in enumerate(reviews(600)))
    groups: dict[str, set[str]] = {}
    for name, listed in bench.run(
        columns={"text": "text", "label": "label", "film": "film"}, splitBy="film"
    ).items():
        for row in listed:
            groups.setdefault(row["film"], set()).add(name)
    assert len(groups) == 60
    assert all(len(names) == 1 for names in groups.values())
    assert {name for names in groups.values() for name in names} == {"train", "validation", "test"}


def test_without_shares_everything_is_train(bench: Bench) -> None:
    bench.csv(reviews(20))
    assert set(bench.run(splits={})) == {"train"}


# --- cleaning -----------------------------------------------------------------------------------------


def test_what_is_dropped_and_why(bench: Bench) -> None:
    made = reviews(60)
    made += [
        {"text": "  ", "label": 1, "source": "imdb"},
        {"text": "unlabelled and long enough", "label": "", "source": "imdb"},
        {"text": "short", "label": 1, "source": "imdb"},
        {"text": "x" * 500, "label": 1, "source": "imdb"},
        {**made[1], "source": "imdb"},
        {"text": "two minds about this one", "label": 0, "source": "imdb"},
        {"text": "Two minds about  this one", "label": 1, "source": "imdb"},
    ]
    bench.csv(made)
    found = bench.run(clean={"minLength": 10, "maxLength": 100, "where": {"source": ["imdb"]}}, splits={})
    assert bench.facts["dropped"] == {
        "contradictory": 2,
        "duplicate": 1,
        "empty": 1,
        "filtered": 20,
        "no label": 1,
        "too long": 1,
        "too short": 1,
    }
    assert len(found["train"]) == 40
    assert bench.facts["read"] == 67


def test_html_and_blanks(bench: Bench) -> None:
    bench.csv([{"text": " Tom &amp; Jerry<br /><br>fine ", "label": 1}, {"text": "a < b", "label": 0}])
    assert {row["text"] for row in bench.run(clean={"unescapeHtml": True}, splits={})["train"]} == {
        "Tom & Jerry\n\nfine",
        "a < b",
    }
    assert " Tom &amp; Jerry<br /><br>fine " in {
        row["text"] for row in bench.run(clean={"strip": False}, splits={})["train"]
    }


def test_ends_of_lines_inside_a_text_end_no_line(bench: Bench) -> None:
    text = "one\u2028two\x85three\u2029four\nfive\x0bsix \U0001f389"
    bench.csv([{"text": text, "label": 1}, {"text": "other", "label": 0}])
    found = bench.run(splits={})
    assert text in {row["text"] for row in found["train"]}
    # Readers that split as str.splitlines does see two rows too.
    assert len((bench.out / "train.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_tokens_and_tags(bench: Bench) -> None:
    lines = [
        {"words": ["Ada", "lives"], "ner": [1, 0]},
        {"words": "in London", "ner": "0 1"},
        {"words": '["New", "York"]', "ner": [1, 1]},
    ]
    bench.put("raw.jsonl", "\n".join(map(json.dumps, lines)))
    # The kind Dataset always names `text`; where there are tokens it need not be there.
    columns = {"text": "text", "tokens": "words", "tags": "ner"}
    found = bench.run(columns=columns, labels={"map": {"0": "O", "1": "NAME"}}, splits={})
    assert {tuple(row["tokens"]): tuple(row["tags"]) for row in found["train"]} == {
        ("Ada", "lives"): ("NAME", "O"),
        ("in", "London"): ("O", "NAME"),
        ("New", "York"): ("NAME", "NAME"),
    }
    bench.put("raw.jsonl", json.dumps({"words": ["a"], "ner": [0, 1]}))
    assert "line 1: 1 tokens, and 2 tags" in bench.wrong(columns=columns, splits={})


def test_summaries(bench: Bench) -> None:
    bench.put("raw.json", json.dumps({"data": [{"article": "A long one.", "short": " Long. "}]}))
    found = bench.run(columns={"text": "article", "summary": "short"}, splits={})
    assert found["train"][0]["summary"] == "Long."
    assert bench.facts["labels"] == {}


# --- formats ------------------------------------------------------------------------------------------


def written(kind: str, made: list[dict[str, Any]]) -> str:
    if kind == "jsonl":
        return "\n".join(map(json.dumps, made)) + "\n"
    if kind == "json":
        return json.dumps(made)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(made[0]), delimiter="," if kind == "csv" else "\t")
    writer.writeheader()
    writer.writerows(made)
    return "\ufeff" + text.getvalue()  # as Excel writes it


def test_every_format_gives_the_same_bytes(bench: Bench) -> None:
    made = reviews(50)
    made[3]["text"] = 'with "quotes", a comma,\na line and a\ttab'
    seen = set()
    for kind in ("csv", "tsv", "jsonl", "json"):
        bench.put(f"raw.{kind}", written(kind, made))
        bench.run(labels=MAP)
        seen.add((bench.out / "train.jsonl").read_bytes())
    assert len(seen) == 1
    bench.put("raw.txt", written("csv", made))
    assert "write `format`" in bench.wrong()
    bench.run(format="csv", labels=MAP)
    assert (bench.out / "train.jsonl").read_bytes() in seen


def test_parquet_without_its_library(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    bench.put("raw.parquet", b"PAR1")
    assert "needs the package pyarrow" in bench.wrong()


# --- what is wrong ------------------------------------------------------------------------------------


def test_all_wrong_columns_are_said_at_once(bench: Bench) -> None:
    bench.csv(reviews(10))
    said = bench.wrong(columns={"text": "txet", "label": "sentiment"}, clean={"where": {"sorce": ["imdb"]}})
    assert "no column 'txet': did you mean 'text'?" in said
    assert "no column 'sentiment'" in said
    assert "no column 'sorce': did you mean 'source'?" in said
    assert "text, label, source" in said


def test_all_wrong_rows_are_said_at_once(bench: Bench) -> None:
    bench.put("raw.csv", 'text,label\nfine,1\n"two\nlines",0\nodd,7\none,two,three\nodd too,7\nalone\n')
    said = bench.wrong(labels=MAP, splits={})
    assert "line 6: 3 fields, and the header has 2" in said
    assert "line 8: 1 fields" in said
    assert "label '7' (2 rows, the first at line 5) is not in labels.map" in said


def test_many_wrong_rows_are_counted(bench: Bench) -> None:
    bench.put("raw.csv", "text,label\n" + "a,b,c\n" * 40)
    said = bench.wrong()
    assert said.count("3 fields") == 5
    assert "and 35 more" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"text,label\ngood,1\nb\xe4d,0\n", "line 3: byte 0xe4 at column 2 is not UTF-8"),
        (b'text,label\ngood,1\n"never closed,0\nx,1\n', "begins at line 3 has a quote that is never closed"),
        (b'text,label\n"odd" quote,1\n', "line 2"),
        (b"text,text,label\na,b,1\n", "header has text more than once"),
        (b"text,label\n" + b"x" * (rows.LARGEST + 1) + b",1\n", "line 2 is too large"),
        (b"text,label\n", "no row is left of 0"),
        (b"", "no column 'text'"),
    ],
)
def test_files_that_cannot_be_read(bench: Bench, content: bytes, said: str) -> None:
    bench.put("raw.csv", content)
    assert said in bench.wrong()


def test_json_lines_that_are_none(bench: Bench) -> None:
    bench.put("raw.jsonl", '{"text": "a", "label": 1}\n{"text": \n[1]\n')
    said = bench.wrong(splits={})
    assert "line 2" in said
    assert "line 3: not a JSON object but a list" in said
    bench.put("raw.json", '{"text": 1}\n{"text": 2}\n')
    assert "write `format: jsonl`" in bench.wrong()


def test_too_little_is_left(bench: Bench) -> None:
    bench.csv(reviews(3))
    said = bench.wrong(splits={"test": 0.0001, "validation": 0.0001})
    assert "the test split is empty" in said
    assert "the validation split is empty" in said
    bench.csv([{**row, "label": 1} for row in reviews(100)])
    assert "only one class: all 100 rows are 'positive'" in bench.wrong(labels=MAP)
    bench.csv(reviews(40))
    assert "no row is left of 40; dropped: 40 filtered" in bench.wrong(clean={"where": {"source": ["none"]}})


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"splits": {"tset": 0.2}}, "did you mean 'test'?"),
        ({"splits": {"test": 0.7, "validation": 0.3}}, "leave none for training"),
        ({"splits": {"test": 20}}, "a fraction between 0 and 1"),
        ({"clean": {"dropEmtpy": True}}, "did you mean 'dropEmpty'?"),
        ({"columns": {"label": "label"}}, "neither text nor tokens"),
        ({"limit": 2}, "must be 3 at least"),
        ({"limit": 4}, "a larger `limit`"),
    ],
)
def test_parameters_that_are_not_right(bench: Bench, params: dict[str, Any], said: str) -> None:
    bench.csv(reviews(10))
    assert said in bench.wrong(**params)


# --- cost ---------------------------------------------------------------------------------------------

_COST = """
import resource, sys, time
from pathlib import Path
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import prepare_data
folder = Path(sys.argv[1])
started = time.process_time()
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
inputs, out, work = {"raw": folder / "raw"}, folder / "out", folder / "work"
job = Job({"splits": {"test": 0.2}}, inputs, out, work, 1, lambda *_: None)
prepare_data.run(job)
print(time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""


def test_the_file_is_never_in_memory(tmp_path: Path) -> None:
    for name in ("raw", "out", "work"):
        (tmp_path / name).mkdir()
    filler = "many words about one film " * 40
    with (tmp_path / "raw/raw.csv").open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        file.writelines(f"{filler}{i},{i % 2}\n" for i in range(34_000))
    assert (tmp_path / "raw/raw.csv").stat().st_size > 35e6
    command = [sys.executable, "-c", _COST, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, kilobytes = map(float, done.stdout.split())
    # Measured: 1.5 s and 30 MB above the imports. Half of the file is what a reader of all of it would need.
    assert seconds < 6
    assert kilobytes < 60_000
