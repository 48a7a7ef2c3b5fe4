"""Bringing bytes: from packages, the project, addresses, a hub and archives; and what is refused."""

import base64
import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, file_download

from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import fetch_data

ROWS = b"text,label\n" + b"".join(b"film %d,%d\n" % (i, i % 2) for i in range(50_000))
HASH = hashlib.sha256(ROWS).hexdigest()
Fetch = Callable[..., Any]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """Runs the pass in one work folder; gives what it fetched, and its facts."""
    count = 0

    def run(source: Mapping[str, Any], **params: Any) -> tuple[Path, Any]:
        nonlocal count
        count += 1
        out, work = tmp_path / f"out{count}", tmp_path / "work"
        out.mkdir()
        work.mkdir(exist_ok=True)
        root = tmp_path / "project"
        full = {"source": dict(source), "root": str(root), **params}
        facts = fetch_data.run(Job(full, {}, out, work, 1, lambda _text, _part: None))
        (path,) = out.iterdir()
        return path, facts

    return run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "data/rows.csv").write_bytes(ROWS)
    return folder


# --- the project's own files --------------------------------------------------------------------------


def test_a_file_of_the_project(fetch: Fetch, project: Path) -> None:
    path, facts = fetch({"path": "data/rows.csv", "file": None})
    assert path.name == "raw.csv"
    assert path.read_bytes() == ROWS
    assert facts["sha256"] == HASH
    assert facts["bytes"] == len(ROWS)
    assert facts["licence"] is None
    assert fetch({"path": "data", "file": "rows.csv"})[0].read_bytes() == ROWS
    assert fetch({"path": "data"})[0].read_bytes() == ROWS


def test_the_licence_stands_in_the_readme(fetch: Fetch, project: Path) -> None:
    (project / "data/README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Rows\n")
    _, facts = fetch({"path": "data"})
    assert (facts["licence"], facts["where"]) == ("cc-by-4.0", "README.md beside the files")


def test_links_inside_the_project_are_followed_and_others_are_not(
    fetch: Fetch, project: Path, tmp_path: Path
) -> None:
    (project / "near.csv").symlink_to("data/rows.csv")
    assert fetch({"path": "near.csv"})[0].read_bytes() == ROWS
    (tmp_path / "secret.csv").write_text("key\n")
    (project / "far.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(Permanent, match="outside the project"):
        fetch({"path": "far.csv"})
    (project / "up").symlink_to(tmp_path)
    with pytest.raises(Permanent, match="outside the project"):
        fetch({"path": "up/secret.csv"})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"path": "../secret.csv"}, "leads out of the project"),
        ({"path": "data/../../secret.csv"}, "leads out of the project"),
        ({"path": "/etc/passwd"}, "leads out of the project"),
        ({"path": "data/row.csv"}, "did you mean 'rows.csv'?"),
        ({"path": "date/rows.csv"}, "there is no folder date"),
        ({"path": "data/rows.csv", "sha256": "0" * 64}, f"its sha256 is {HASH}"),
        ({"path": "data/rows.csv", "maxBytes": 100}, "more than maxBytes"),
        ({"path": "data/rows.csv", "fiel": "x"}, "has no field 'fiel': did you mean 'file'?"),
        ({"path": "a", "url": "http://x/"}, "this one has path, url"),
        ({}, "name one of package, path, url and hub|this one has none"),
        ({"path": "data/empty.csv"}, "is empty"),
        ({"path": "data/model.pkl"}, "a pickle, which can run code"),
        ({"rows": "/nowhere/rows.jsonl"}, "were to lie in /nowhere/rows.jsonl"),
    ],
)
def test_sources_that_are_not_right(fetch: Fetch, project: Path, source: dict[str, Any], said: str) -> None:
    (project / "data/empty.csv").touch()
    (project / "data/model.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(Permanent, match=said.replace("?", r"\?")):
        fetch(source)


def test_one_of_several_data_files_is_named(fetch: Fetch, project: Path) -> None:
    (project / "data/more.csv").write_bytes(ROWS)
    with pytest.raises(Permanent, match=r"has 2 data files.*more\.csv, rows\.csv"):
        fetch({"path": "data"})


def test_rows_of_a_query(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "query.jsonl").write_text('{"text": "a"}\n')
    path, facts = fetch({"rows": str(tmp_path / "query.jsonl")})
    assert path.name == "raw.jsonl"
    assert facts["source"] == "the rows of the query"


# --- archives -----------------------------------------------------------------------------------------


def tape(path: Path, members: Mapping[str, bytes], link: str = "") -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        if link:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry)


def test_a_file_inside_an_archive(fetch: Fetch, project: Path) -> None:
    tape(project / "a.tar.gz", {"inner/rows.csv": ROWS, "inner/other.csv": b"x\n"})
    assert fetch({"path": "a.tar.gz!inner/rows.csv"})[1]["sha256"] == HASH
    assert fetch({"path": "a.tar.gz", "file": "inner/rows.csv"})[1]["sha256"] == HASH
    with zipfile.ZipFile(project / "a.zip", "w") as archive:
        archive.writestr("rows.csv", ROWS)
    assert fetch({"path": "a.zip!rows.csv"})[1]["sha256"] == HASH
    with pytest.raises(Permanent, match=r"has no inner/row\.csv: did you mean 'inner/rows\.csv'\?"):
        fetch({"path": "a.tar.gz!inner/row.csv"})


def test_archives_are_not_trusted(fetch: Fetch, project: Path, tmp_path: Path) -> None:
    tape(project / "up.tar.gz", {"../../../../out.csv": b"x\n", "rows.csv": ROWS})
    with pytest.raises(Permanent, match="leads out of the archive"):
        fetch({"path": "up.tar.gz!rows.csv"})
    with zipfile.ZipFile(project / "up.zip", "w") as archive:
        archive.writestr("..\\..\\out.csv", b"x\n")
    with pytest.raises(Permanent, match="leads out of the archive"):
        fetch({"path": "up.zip!rows.csv"})
    tape(project / "link.tar.gz", {}, link="rows.csv")
    with pytest.raises(Permanent, match="is a link or a device"):
        fetch({"path": "link.tar.gz!rows.csv"})
    tape(project / "large.tar.gz", {"rows.csv": b"0" * 5_000_000})
    with pytest.raises(Permanent, match=r"larger than 1\.0 MB"):
        fetch({"path": "large.tar.gz!rows.csv", "maxBytes": 1_000_000})
    tape(project / "whole.tar.gz", {"rows.csv": os.urandom(100_000)})
    (project / "half.tar.gz").write_bytes((project / "whole.tar.gz").read_bytes()[:60_000])
    with pytest.raises(Permanent, match="it is broken"):
        fetch({"path": "half.tar.gz!rows.csv"})
    with pytest.raises(Permanent, match="neither a zip nor a tar archive"):
        fetch({"path": "data/rows.csv!rows.csv"})
    assert not list(tmp_path.glob("*out.csv"))


# --- packages -----------------------------------------------------------------------------------------


def wheel(folder: Path, name: str, files: Mapping[str, bytes], lie: str = "") -> Path:
    """A wheel as pip takes it. `lie`: the file whose hash in RECORD is another's."""
    info = f"{name}-1.0.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: MIT\n"
    members = {
        **files,
        f"{info}/METADATA": about.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for member, content in members.items():
        hashed = hashlib.sha256(b"another" if member == lie else content).digest()
        record += f"{member},sha256={base64.urlsafe_b64encode(hashed).decode().rstrip('=')},{len(content)}\n"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def install(made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel of Python files alone is installed by unpacking it."""
    with zipfile.ZipFile(made) as archive:
        archive.extractall(folder)  # noqa: S202 - made above
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What pip finds: the wheels in this folder, and no network."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_an_installed_package(
    fetch: Fetch, tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"some_films/__init__.py": b"raise SystemExit\n", "some_films/data/rows.csv": ROWS}
    install(wheel(tmp_path, "some_films", files), tmp_path / "site", monkeypatch)
    source = {"package": "some-films==1.0", "file": "some_films/data/rows.csv"}
    path, facts = fetch(source)
    assert path.read_bytes() == ROWS
    assert facts["licence"] == "MIT"
    assert facts["source"] == "some_films/data/rows.csv of some-films==1.0 (installed)"
    (tmp_path / "site/some_films/data/rows.csv").write_bytes(ROWS + b"one more,1\n")
    with pytest.raises(Permanent, match=r"is not what the package shipped.*Install it again"):
        fetch(source)
    # Another version than the installed one is another file.
    with pytest.raises(Permanent, match=r"some-films==2\.0 is not installed, and cannot be downloaded"):
        fetch({**source, "package": "some-films==2.0"})


def test_a_package_that_is_not_installed(fetch: Fetch, index: Path, tmp_path: Path) -> None:
    made = wheel(index, "other_films", {"other_films/data/rows.csv": ROWS, "other_films/READ": b"x"})
    source = {"package": "other-films==1.0", "file": "other_films/data/rows.csv"}
    path, facts = fetch(source)
    assert path.read_bytes() == ROWS
    assert facts["licence"] == "MIT"
    # The next build of the same key finds what this one downloaded.
    made.unlink()
    assert fetch(source)[0].read_bytes() == ROWS


def test_a_package_whose_record_does_not_fit(fetch: Fetch, index: Path) -> None:
    wheel(index, "wrong_films", {"wrong_films/rows.csv": ROWS}, lie="wrong_films/rows.csv")
    with pytest.raises(Permanent, match="is not what the package shipped"):
        fetch({"package": "wrong-films==1.0", "file": "wrong_films/rows.csv"})


def test_an_archive_inside_a_package(fetch: Fetch, index: Path, tmp_path: Path) -> None:
    tape(tmp_path / "inner.tar.gz", {"deep/rows.csv": ROWS})
    packed = (tmp_path / "inner.tar.gz").read_bytes()
    wheel(index, "packed_films", {"packed_films/inner.tar.gz": packed})
    _, facts = fetch({"package": "packed-films==1.0", "file": "packed_films/inner.tar.gz!deep/rows.csv"})
    assert facts["sha256"] == HASH


@pytest.mark.parametrize(
    ("package", "file", "said"),
    [
        ("films>=1.0", "x", "no exact version"),
        ("films", "x", "no exact version"),
        ("--index-url==1.0", "x", "no exact version"),
        ("films==1.0", None, "needs `file`"),
        ("no-such-films==1.0", "x", "No matching distribution found for no-such-films==1.0"),
        ("here_films==1.0", "here_films/row.csv", "did you mean 'here_films/rows.csv'?"),
    ],
)
def test_packages_that_cannot_be_had(
    fetch: Fetch, index: Path, package: str, file: str | None, said: str
) -> None:
    wheel(index, "here_films", {"here_films/rows.csv": ROWS})
    with pytest.raises(Permanent) as caught:
        fetch({"package": package, "file": file})
    assert said in str(caught.value)


# --- addresses ----------------------------------------------------------------------------------------


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file; what it does with the next requests is told by `script`."""

    script: list[str] = []  # noqa: RUF012 - the fixture empties it
    ranges: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        step = self.script.pop(0) if self.script else "whole"
        asked = self.headers.get("Range", "")
        self.ranges.append(asked)
        if step.isdigit():
            self.send_error(int(step))
            return
        body = b"other" * 100 if step == "other" else ROWS
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and step != "no ranges" else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        # A connection that breaks, half-way through what was asked for.
        self.wfile.write(body[start : (start + len(body)) // 2] if step == "break" else body[start:])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Server.script, Server.ranges = [], []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield f"http://127.0.0.1:{server.server_address[1]}/films/rows.csv?token=hidden"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_address(fetch: Fetch, address: str) -> None:
    path, facts = fetch({"url": address, "sha256": HASH})
    assert path.read_bytes() == ROWS
    assert "hidden" not in facts["source"]
    fetch({"url": address, "sha256": HASH})
    assert Server.ranges == [""], "the second time it lies there already"


def test_a_connection_that_breaks_goes_on_where_it_stopped(fetch: Fetch, address: str) -> None:
    Server.script = ["break", "break", "503"]
    assert fetch({"url": address, "sha256": HASH})[1]["sha256"] == HASH
    half, more = len(ROWS) // 2, (len(ROWS) // 2 + len(ROWS)) // 2
    assert Server.ranges == ["", f"bytes={half}-", f"bytes={more}-", f"bytes={more}-"]


def test_the_next_build_goes_on_where_this_one_stopped(fetch: Fetch, address: str) -> None:
    Server.script = ["break", "503", "503", "503"]
    with pytest.raises(Temporary, match=r"could not be fetched in 4 tries.*0\.3 MB are kept") as caught:
        fetch({"url": address, "sha256": HASH})
    assert "hidden" not in str(caught.value)
    Server.ranges.clear()
    assert fetch({"url": address, "sha256": HASH})[1]["sha256"] == HASH
    assert Server.ranges == [f"bytes={len(ROWS) // 2}-"]


def test_a_server_without_ranges_begins_again(fetch: Fetch, address: str) -> None:
    Server.script = ["break", "no ranges"]
    assert fetch({"url": address, "sha256": HASH})[1]["sha256"] == HASH


def test_what_was_put_together_from_two_files_is_fetched_anew(
    fetch: Fetch, address: str, tmp_path: Path
) -> None:
    Server.script = ["break", "503", "503", "503"]
    with pytest.raises(Temporary):
        fetch({"url": address, "sha256": HASH})
    (part,) = tmp_path.glob("work/**/*.part")
    part.write_bytes(b"0" * part.stat().st_size)
    assert fetch({"url": address, "sha256": HASH})[1]["sha256"] == HASH
    assert Server.ranges[-1] == ""


def test_another_file_than_the_spec_means(fetch: Fetch, address: str, tmp_path: Path) -> None:
    Server.script = ["other"]
    with pytest.raises(Permanent, match=f"sha256 is [0-9a-f]{{64}}, the spec says {HASH}"):
        fetch({"url": address, "sha256": HASH})
    assert len(Server.ranges) == 1, "a whole file that is wrong is not fetched twice"
    assert not list(tmp_path.glob("work/**/*.part"))


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        (["404"], Permanent, "the server answered 404 Not Found"),
        (["403"], Permanent, "whether this machine may read it"),
        (["429"] * 4, Temporary, "the server answered 429"),
    ],
)
def test_what_a_server_may_answer(
    fetch: Fetch, address: str, script: list[str], error: type[Exception], said: str
) -> None:
    Server.script = script
    with pytest.raises(error, match=said):
        fetch({"url": address, "sha256": HASH})


def test_addresses_that_are_refused(fetch: Fetch, address: str) -> None:
    with pytest.raises(Permanent, match="needs `sha256`"):
        fetch({"url": address})
    with pytest.raises(Permanent, match="no address that can be fetched"):
        fetch({"url": "file:///etc/passwd", "sha256": HASH})
    with pytest.raises(Permanent, match=r"larger than 0\.1 MB"):
        fetch({"url": address, "sha256": HASH, "maxBytes": 100_000})


def test_nobody_listens(fetch: Fetch, address: str) -> None:
    with pytest.raises(Temporary, match="Connection refused"):
        fetch({"url": "http://127.0.0.1:9/rows.csv", "sha256": HASH})


# --- the hub ------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's interface as a snapshot needs."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    fetched: list[str] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        if self.path.startswith("/api/datasets/films/rows/revision/"):
            if not self.path.endswith(COMMIT):
                self.send_response(404)
                self.send_header("X-Error-Code", "RevisionNotFound")
                self.end_headers()
                return
            siblings = [{"rfilename": name} for name in self.files]
            info = {"id": "films/rows", "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(info).encode(), "application/json", with_body)
        elif self.path.startswith(f"/datasets/films/rows/resolve/{COMMIT}/"):
            name = self.path.rpartition(f"{COMMIT}/")[2]
            if with_body:
                self.fetched.append(name)
            self._send(self.files[name], "text/plain", with_body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

    def _send(self, body: bytes, kind: str, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')  # noqa: S324 - as the hub does
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Hub.fetched = []
    Hub.files = {
        "data/rows.csv": ROWS,
        "README.md": b"---\nlicense: mit\n---\n",
        "model.pkl": b"\x80\x04.",
        "cover.png": b"\x89PNG",
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_hub(fetch: Fetch, hub: None) -> None:
    path, facts = fetch({"hub": "films/rows", "revision": COMMIT, "file": "data/rows.csv"})
    assert path.read_bytes() == ROWS
    assert facts["source"] == "films/rows at 0123456789ab on the hub"
    assert facts["licence"] == "mit"
    assert fetch({"hub": "films/rows", "revision": COMMIT})[0].read_bytes() == ROWS
    # Neither pictures nor pickle.
    assert set(Hub.fetched) == {"README.md", "data/rows.csv"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"hub": "films/rows"}, "needs `revision`"),
        ({"hub": "films/rows", "revision": "main"}, "has no revision main"),
        ({"hub": "films/none", "revision": COMMIT}, "has no dataset films/none"),
        ({"hub": "films/rows", "revision": COMMIT, "files": ["model.pkl"]}, "a pickle, which can run code"),
        ({"hub": "films/rows", "revision": COMMIT, "file": "data/none.csv"}, "has none of these files"),
    ],
)
def test_what_the_hub_has_not(fetch: Fetch, hub: None, source: dict[str, Any], said: str) -> None:
    with pytest.raises(Permanent, match=said):
        fetch(source)
    assert "model.pkl" not in Hub.fetched


def test_no_hub_while_offline(fetch: Fetch, hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Permanent, match="this process is offline"):
        fetch({"hub": "films/rows", "revision": COMMIT})
