"""A project on disk, from where somebody stands to the doors of one environment."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.diagnostic import Severity
from gamma_orch.core.provider import GammaError
from gamma_orch.engine import doors, project
from gamma_orch.engine.converge import apply, look
from gamma_orch.engine.project import NoProject, SpecsBroken
from gamma_orch.store.database import Database
from gamma_orch.store.errors import StoreError
from gamma_orch.store.ledger import events
from tests.engine.bench import Bench, statuses
from tests.engine.test_commit import commit, git

PLAIN = "apiVersion: gamma/v1\nkind: Environment\nmetadata: {name: dev}\n"
SPEC = PLAIN + "spec:\n"
THING = "apiVersion: gamma/v1\nkind: Thing\nmetadata: {name: a}\nspec: {value: one}\n"
A = Address("Thing", "a")


def write(root: Path, environment: str = PLAIN, thing: str = THING, **more: str) -> Path:
    files: Mapping[str, str] = {
        "environments/dev/environment.yaml": environment,
        "specs/app.yaml": thing,
        **more,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GAMMA_PLUGINS", "gamma_orch.testing.thing")
    return write(tmp_path / "project")


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ledgers that were closed, in a row."""
    found: list[str] = []
    real = Database.close

    def close(self: Database) -> None:
        found.append(self.url)
        real(self)

    monkeypatch.setattr(Database, "close", close)
    return found


# -- where it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["specs", "environments"])
def test_the_root_is_found_from_inside(tmp_path: Path, folder: str):
    inside = tmp_path / folder / "deep" / "down"
    inside.mkdir(parents=True)
    assert project.find_root(inside) == tmp_path
    assert project.find_root(tmp_path) == tmp_path


def test_the_nearest_root_counts(tmp_path: Path):
    inner = tmp_path / "specs" / "inner"
    (inner / "specs").mkdir(parents=True)
    assert project.find_root(inner) == inner


def test_a_file_of_that_name_is_no_project(tmp_path: Path):
    (tmp_path / "specs").write_text("")
    with pytest.raises(NoProject) as error:
        project.find_root(tmp_path)
    assert str(error.value) == (
        f"There is no Gamma project in {tmp_path} or above it: no folder has specs/ or environments/. "
        "Make one with: gamma init DIR"
    )


def test_where_there_is_none_nothing_is_made(tmp_path: Path):
    for use in (doors.opened, doors.ledger):
        with pytest.raises(NoProject), use(tmp_path, "dev"):
            pytest.fail("opened")
    assert list(tmp_path.iterdir()) == []


def test_the_environments_in_order(root: Path):
    (root / "environments/prod").mkdir()
    (root / "environments/a-test").mkdir()
    (root / "environments/README").write_text("")
    assert project.environments(root) == ("a-test", "dev", "prod")


# -- opened --------------------------------------------------------------------------------------


def test_from_files_to_the_world_and_back(root: Path, closed: list[str]):
    with doors.opened(root / "specs", "dev") as site:
        assert site.environment == "dev"
        assert set(site.desired) == {A}
        assert site.commit == ""
        outcome = doors.run(site, apply(site))
        assert statuses(outcome) == {"a": "done"}
        assert doors.run(site, look(site)).plan.steps == (), "a second verb in a loop of its own"
        assert closed == []
    assert closed == [f"sqlite:///{root}/.gamma/ledger.db"]
    assert (root / ".gamma/ledger.db").exists()
    assert (root / ".gamma/dev/world.jsonl").exists()
    with doors.ledger(root, "dev") as database:
        assert [e.type.value for e in events(database, "dev")] == ["planned", "begun", "done", "released"]
    assert len(closed) == 2


def test_opening_alone_makes_no_ledger(root: Path):
    with doors.opened(root, "dev") as site:
        doors.run(site, look(site))
    assert not (root / ".gamma/ledger.db").exists()


@pytest.mark.parametrize("use", [doors.opened, doors.ledger])
def test_the_ledger_is_closed_after_an_error_too(root: Path, closed: list[str], use):
    with pytest.raises(ZeroDivisionError), use(root, "dev"):
        raise ZeroDivisionError
    assert len(closed) == 1


def test_a_relative_start(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root / "specs")
    with doors.opened(Path(), "dev") as site:
        assert site.database.file == root / ".gamma/ledger.db"
    with doors.ledger(Path(), "dev") as database:
        assert database.file == root / ".gamma/ledger.db"


def test_a_ledger_that_machines_share(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GAMMA_LEDGER", f"sqlite:///{tmp_path}/shared.db")
    with doors.opened(root, "dev") as site:
        doors.run(site, apply(site))
    assert not (root / ".gamma/ledger.db").exists()
    assert (tmp_path / "shared.db").exists()
    with doors.ledger(root, "dev") as database:
        assert len(events(database, "dev")) == 4


def test_an_empty_setting_is_none(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GAMMA_LEDGER", "")
    assert doors.ledger_url(root) == f"sqlite:///{root}/.gamma/ledger.db"


@pytest.mark.parametrize("use", [doors.opened, doors.ledger])
def test_a_ledger_url_that_is_none(root: Path, monkeypatch: pytest.MonkeyPatch, use):
    monkeypatch.setenv("GAMMA_LEDGER", "mysql://u:hunter2@h/d")
    with pytest.raises(StoreError, match="GAMMA_LEDGER") as error, use(root, "dev"):
        pytest.fail("opened")
    assert "hunter2" not in str(error.value)


def test_the_commit_of_the_project(root: Path):
    git(root, "init", "-q")
    head = commit(root, "1")
    with doors.opened(root, "dev") as site:
        assert site.commit == head


def test_targets_and_secrets_come_from_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    write(
        root,
        SPEC + "  secrets:\n    db: {env: DB_PASSWORD}\n"
        "  targets:\n"
        "    main: {type: postgres, url: 'postgresql://u:${secret.db}@h/d', maxParallel: 3}\n"
        "    own: {type: postgres, embedded: true}\n",
    )
    found, desired = project.faultless(root, "dev")
    declared = doors._declared(desired)
    assert "hunter2" not in repr(declared)
    assert found.secrets.reveal(declared["main"]["url"]) == "postgresql://u:hunter2@h/d"
    said = {key: value for key, value in declared["own"].items() if value is not None}
    assert said == {"type": "postgres", "embedded": True, "interval": "5s", "maxParallel": 8}
    with doors.opened(root, "dev") as site:
        targets = site.world.targets
        assert (targets.limit("postgres/main"), targets.limit("postgres/own")) == (3, 8)
        assert (targets.environment, targets.state) == ("dev", root / ".gamma")


def test_the_folders_of_a_prometheus_by_its_url_are_those_of_the_environment(root: Path):
    write(
        root,
        SPEC + "  targets:\n"
        "    other: {type: prometheus, url: 'http://h:9090', rules: theirs/rules, scrapes: theirs/scrapes}\n",
    )
    (root / "theirs" / "scrapes").mkdir(parents=True)
    job = "# Made by Gamma, of {}\nscrape_configs: [{job_name: a}]\n"
    (root / "theirs" / "scrapes" / "a.yml").write_text(job)
    with doors.opened(root, "dev") as site:
        other = site.world.targets.prometheus("other")
        assert other.rules == root / "theirs" / "rules"
        assert other.kept() == {"a": ({"job_name": "a"}, {})}


# -- what is wrong -------------------------------------------------------------------------------


def test_broken_specs_are_all_told_and_nothing_is_opened(root: Path, closed: list[str]):
    write(root, thing=THING.replace("value: one", "valeu: one") + "---\n" + THING.replace("one", "[1]"))
    with pytest.raises(SpecsBroken, match=r"^The specs have errors\.$") as error, doors.opened(root, "dev"):
        pytest.fail("opened")
    errors = [d for d in error.value.diagnostics if d.severity is Severity.ERROR]
    assert len(errors) >= 2
    assert {d.span.file for d in errors if d.span} == {"specs/app.yaml"}
    assert closed == []
    assert not (root / ".gamma/ledger.db").exists()
    found = project.read(root, "dev")
    assert found.desired is None
    assert found.diagnostics == error.value.diagnostics


def test_a_file_that_is_no_yaml_breaks_the_specs(root: Path):
    (root / "specs/broken.yaml").write_text("{")
    assert project.read(root, "dev").desired is None


def test_a_file_that_cannot_be_taken_breaks_the_specs(root: Path, tmp_path: Path):
    """Or the resources in it would be taken for removed ones."""
    (tmp_path / "outside.yaml").write_text(THING)
    (root / "specs/link.yaml").symlink_to(tmp_path / "outside.yaml")
    assert project.read(root, "dev").desired is None


def test_a_missing_secret_breaks_the_specs(root: Path):
    write(root, thing=THING.replace("value: one", "secret: '${secret.pw}'"))
    found = project.read(root, "dev")
    assert found.desired is None
    assert any("GAMMA_SECRET_PW is not set" in d.message for d in found.diagnostics)


def test_sound_specs_have_no_diagnostics(root: Path):
    found = project.read(root, "dev")
    assert found.diagnostics == ()
    assert found.desired is not None
    assert (found.root, found.environment) == (root, "dev")
    assert "Thing" in found.kinds.names()
    again = project.read(root, "dev")  # from the cache
    assert list((root / ".gamma/cache").iterdir())
    assert again.desired is not None
    assert again.desired.resources == found.desired.resources


def test_an_environment_that_there_is_not(root: Path):
    (root / "environments/prod").mkdir()
    with pytest.raises(SpecsBroken) as error, doors.opened(root, "prdo"):
        pytest.fail("opened")
    assert any("prdo" in d.message for d in error.value.diagnostics)
    with pytest.raises(GammaError) as missing, doors.ledger(root, "prdo"):
        pytest.fail("opened")
    assert str(missing.value) == (
        f"There is no environment 'prdo' in {root}/environments. did you mean 'prod'?"
    )


def test_looking_back_works_with_broken_specs(root: Path):
    with doors.opened(root, "dev") as site:
        doors.run(site, apply(site))
    write(root, thing="{", environment="{")
    with doors.ledger(root / "specs", "dev") as database:
        assert len(events(database, "dev")) == 4


# -- run -----------------------------------------------------------------------------------------


def test_a_verb_closes_what_it_opened_in_its_own_loop(bench: Bench):
    loops: list[asyncio.AbstractEventLoop] = []
    site = bench.site()

    async def closing() -> None:
        loops.append(asyncio.get_running_loop())

    site.world.targets.aclose = closing  # type: ignore[method-assign]

    async def work() -> str:
        loops.append(asyncio.get_running_loop())
        return "done"

    async def fails() -> None:
        raise ZeroDivisionError

    assert doors.run(site, work()) == "done"
    assert len(loops) == 2
    assert loops[0] is loops[1]
    with pytest.raises(ZeroDivisionError):
        doors.run(site, fails())
    assert len(loops) == 3
