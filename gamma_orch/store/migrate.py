"""Brings the ledger's tables to this version, through Alembic. Imported only when there is need."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from filelock import FileLock
from sqlalchemy import Engine


def upgrade(engine: Engine, file: Path | None) -> None:
    """Run the missing migrations, each in a transaction. Two processes at once are safe."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    if file is None:
        command.upgrade(config, "head")  # env.py takes an advisory lock
        return
    with FileLock(f"{file}.lock"):
        command.upgrade(config, "head")
