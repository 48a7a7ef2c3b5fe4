"""Where secrets come from, and what of them may be seen: a keyed digest, and nothing else."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.leaves import Ref, Secret, Template, Unknown
from gamma_orch.core.provider import Permanent
from gamma_orch.engine import secrets as module
from gamma_orch.engine.secrets import SecretMissing, Secrets, make_private
from gamma_orch.spec.environment import Generate, SecretSource

VALUE = "hunter2-bytes"
ENV = SecretSource(env="PW")
GENERATED = SecretSource(generate=Generate(length=20))


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    monkeypatch.setenv("PW", VALUE)
    return Secrets(tmp_path / ".gamma", "dev", tmp_path)


def again(tmp_path: Path, environment: str = "dev") -> Secrets:
    """As another command sees them."""
    return Secrets(tmp_path / ".gamma", environment, tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def reveal(secrets: Secrets, name: str, source: SecretSource) -> object:
    return secrets.reveal(Secret(name, secrets.digest(name, source)))


# -- the sources ---------------------------------------------------------------------------------


def test_an_environment_variable_byte_for_byte(secrets: Secrets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PW", " with space\n")
    assert reveal(secrets, "pw", ENV) == " with space\n"


def test_an_empty_environment_variable_is_a_value(secrets: Secrets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PW", "")
    assert reveal(secrets, "pw", ENV) == ""


def test_an_environment_variable_that_is_not_set(secrets: Secrets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PW")
    with pytest.raises(SecretMissing, match=r"^the environment variable PW is not set\.$"):
        secrets.digest("pw", ENV)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_without_its_last_line_end(secrets: Secrets, tmp_path: Path, end: str):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/pw").write_bytes(f" pä\nss {end}".encode())
    assert reveal(secrets, "pw", SecretSource(file="keys/pw")) == " pä\nss "


def test_a_file_at_an_absolute_path(secrets: Secrets, tmp_path: Path):
    (tmp_path / "pw").write_text("x")
    assert reveal(secrets, "pw", SecretSource(file=str(tmp_path / "pw"))) == "x"


def test_a_file_that_is_not_there(secrets: Secrets, tmp_path: Path):
    with pytest.raises(SecretMissing) as error:
        secrets.digest("pw", SecretSource(file="none"))
    assert str(error.value) == f"the file {tmp_path / 'none'} does not exist."


def test_a_file_that_is_no_text(secrets: Secrets, tmp_path: Path):
    (tmp_path / "pw").write_bytes(VALUE.encode() + b"\xff")
    with pytest.raises(SecretMissing) as error:
        secrets.digest("pw", SecretSource(file="pw"))
    assert str(error.value) == f"the file {tmp_path / 'pw'} cannot be read: it is not UTF-8 text."
    assert error.value.__cause__ is None, "the decoder's error holds the bytes"


def test_a_file_that_cannot_be_read(secrets: Secrets, tmp_path: Path):
    (tmp_path / "pw").mkdir()
    with pytest.raises(SecretMissing, match=r"pw cannot be read: Is a directory\.$"):
        secrets.digest("pw", SecretSource(file="pw"))


# -- generated -----------------------------------------------------------------------------------


def test_a_generated_one_is_kept_and_private(secrets: Secrets, tmp_path: Path):
    made = reveal(secrets, "pw", GENERATED)
    assert isinstance(made, str)
    assert len(made) == 20
    assert set(made) <= set(module.ALPHABET)
    path = tmp_path / ".gamma/dev/secrets/pw"
    assert path.read_text() == made
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert mode(tmp_path / ".gamma/key") == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["pw"], "a draft is left behind"
    assert reveal(again(tmp_path), "pw", GENERATED) == made
    assert again(tmp_path).digest("pw", GENERATED) == secrets.digest("pw", GENERATED)


def test_private_whatever_the_umask_is(tmp_path: Path):
    before = os.umask(0)
    try:
        make_private(tmp_path / "a/b", "x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a/b") == 0o600
    assert mode(tmp_path / "a") == 0o700


def test_others_have_others(secrets: Secrets, tmp_path: Path):
    values = [
        reveal(secrets, "pw", GENERATED),
        reveal(secrets, "pw2", GENERATED),
        reveal(again(tmp_path, "prod"), "pw", GENERATED),
    ]
    assert len(set(values)) == 3


def test_whoever_comes_second_keeps_the_first_ones(tmp_path: Path):
    make_private(tmp_path / "pw", "first")
    make_private(tmp_path / "pw", "second")
    assert (tmp_path / "pw").read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["pw"]


def test_one_that_appears_between_the_look_and_the_making(
    secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = module.make_private

    def slow(path: Path, text: str) -> None:
        if path.name == "pw":
            real(path, "theirs")
        real(path, text)

    monkeypatch.setattr(module, "make_private", slow)
    assert reveal(secrets, "pw", GENERATED) == "theirs"


def test_two_processes_at_once_make_one_value(tmp_path: Path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gamma_orch.engine.secrets import Secrets\n"
        "from gamma_orch.core.leaves import Secret\n"
        "from gamma_orch.spec.environment import Generate, SecretSource\n"
        "root = Path(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "for n in range(40):\n"
        "    secrets = Secrets(root / str(n), 'dev', root)\n"
        "    digest = secrets.digest('pw', SecretSource(generate=Generate()))\n"
        "    print(secrets.reveal(Secret('pw', digest)), digest)\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(2)
    ]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    said = [run.communicate(timeout=30)[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert len(said[0]) == 40
    assert said[0] == said[1]
    assert len({line.split()[0] for line in said[0]}) == 40


# -- digests -------------------------------------------------------------------------------------


def test_a_digest_tells_whether_the_bytes_changed(
    secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = secrets.digest("pw", ENV)
    key, _, keyed = first.partition(":")
    assert len(key) == 8
    assert len(keyed) == 64
    assert VALUE not in first
    assert again(tmp_path).digest("pw", ENV) == first
    monkeypatch.setenv("PW", "other")
    assert again(tmp_path).digest("pw", ENV) != first
    assert again(tmp_path).digest("pw", ENV).partition(":")[0] == key, "the same key"


def test_two_names_of_one_value_have_two_digests(secrets: Secrets):
    assert secrets.digest("a", ENV) != secrets.digest("b", ENV)


def test_a_digest_is_made_once_a_command(secrets: Secrets, monkeypatch: pytest.MonkeyPatch):
    first = secrets.digest("pw", ENV)
    monkeypatch.setenv("PW", "other")
    assert secrets.digest("pw", ENV) == first


def test_another_key_is_another_digest_with_another_key_id(
    secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = secrets.digest("pw", ENV)
    monkeypatch.setenv("GAMMA_KEY", "shared")
    shared = again(tmp_path).digest("pw", ENV)
    monkeypatch.setenv("GAMMA_KEY", "another")
    other = again(tmp_path).digest("pw", ENV)
    assert len({text.partition(":")[0] for text in (own, shared, other)}) == 3
    assert len({text.partition(":")[2] for text in (own, shared, other)}) == 3


def test_machines_with_one_key_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PW", VALUE)
    monkeypatch.setenv("GAMMA_KEY", "shared")
    digests = {Secrets(tmp_path / machine, "dev", tmp_path).digest("pw", ENV) for machine in "ab"}
    assert len(digests) == 1
    assert not list(tmp_path.rglob("key")), "a key was made that nobody uses"


def test_machines_of_their_own_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PW", VALUE)
    digests = {Secrets(tmp_path / machine, "dev", tmp_path).digest("pw", ENV) for machine in "ab"}
    assert len(digests) == 2


# -- revealing -----------------------------------------------------------------------------------


def test_a_tree_is_revealed_leaf_by_leaf(secrets: Secrets):
    secret = Secret("pw", secrets.digest("pw", ENV))
    tree = {
        "plain": 1,
        "alone": secret,
        "list": [secret, "x"],
        "text": Template(("postgres://u:", secret, "@h/d")),
    }
    assert secrets.reveal(tree) == {
        "plain": 1,
        "alone": VALUE,
        "list": [VALUE, "x"],
        "text": f"postgres://u:{VALUE}@h/d",
    }
    assert tree["alone"] is secret


def test_a_value_is_read_at_the_moment_of_the_effect(secrets: Secrets, monkeypatch: pytest.MonkeyPatch):
    secret = Secret("pw", secrets.digest("pw", ENV))
    monkeypatch.delenv("PW")
    with pytest.raises(SecretMissing):
        secrets.reveal(secret)


@pytest.mark.parametrize(
    "leaf", [Ref(Address("Item", "a"), "id"), Unknown("later"), Template((Unknown("later"), "x"))]
)
def test_what_is_not_known_cannot_be_revealed(secrets: Secrets, leaf: object):
    with pytest.raises(Permanent, match="has no value yet"):
        secrets.reveal({"a": leaf})


def test_no_bytes_are_kept(secrets: Secrets):
    secrets.reveal(Secret("pw", secrets.digest("pw", ENV)))
    assert VALUE not in repr(vars(secrets))
