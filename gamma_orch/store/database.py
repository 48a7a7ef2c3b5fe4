"""The connection to the ledger's database: SQLite by default, PostgreSQL by URL.

All statements are plain SQL that both understand, with `:name` parameters, and each is spelled once
(in `ledger` and `lease`). Writing goes through SQLAlchemy. Reading SQLite goes through the standard
library's driver with the very same statements: importing SQLAlchemy costs half a second of CPU, and
`gamma plan` in a world where nothing changed should not pay it.

The tables are made and changed by Alembic (`migrations/`), at the first writing use.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gamma_orch.store.errors import StoreError, WrongSchema

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

# The newest revision in migrations/versions; a test holds the two together.
HEAD = "0002"
VERSIONS = ("0001", "0002")
_SCHEMA = "SELECT version_num FROM gamma_schema"

Row = Sequence[Any]
Parameters = Mapping[str, Any]


class Database:
    """Opened lazily, shared by one command. Not thread-safe for writing: the journal serialises."""

    def __init__(self, url: str) -> None:
        """`url` as SQLAlchemy spells it: `sqlite:///path` or `postgresql://...`."""
        if not url.startswith(("sqlite:///", "postgresql", "postgres://")):
            raise StoreError("The ledger's URL begins with sqlite:/// or postgresql://. Check GAMMA_LEDGER.")
        self.url = with_driver(url)
        self.file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
        self._engine: Engine | None = None
        self._migrated = False
        self._known = False  # that its schema is one of ours

    def read(self, statement: str, **parameters: Any) -> list[Row]:
        """The rows of a query; none where the ledger does not exist yet."""
        if self.file is None:
            self._migrate()
            with self._reported("read"), self._open().connect() as connection:
                return _execute(connection, statement, parameters)
        if not self.file.exists():
            return []
        try:
            with closing(sqlite3.connect(self.file, timeout=30)) as plain:
                if not self._known:
                    self._refuse_newer(plain.execute(_SCHEMA).fetchall())
                return plain.execute(statement, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            if "no such table" in str(error):
                return []
            raise self._failed("read", error) from None

    @contextmanager
    def transaction(self) -> Iterator["Writing"]:
        """All or nothing, durable when it returns. Raises StoreError where the database is away."""
        self._migrate()
        with self._reported("written"), self._open().begin() as connection:
            yield Writing(connection)

    @property
    def place(self) -> str:
        """Where it is, for people: no password in it."""
        if self.file:
            return str(self.file)
        from sqlalchemy import make_url

        return make_url(self.url).render_as_string(hide_password=True)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()

    def _open(self) -> "Engine":
        if self._engine is None:
            from sqlalchemy.exc import ArgumentError

            try:
                self._engine = _engine(self.url, self.file)
            except (ArgumentError, ValueError):
                raise StoreError("The ledger's URL cannot be understood. Check GAMMA_LEDGER.") from None
        return self._engine

    def _migrate(self) -> None:
        if self._migrated:
            return
        with self._reported("opened"):
            if self.file:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            found = self._version()
            self._refuse_newer(found)
            if found != [(HEAD,)]:
                from gamma_orch.store.migrate import upgrade

                upgrade(self._open(), self.file)
        self._migrated = True

    def _version(self) -> list[Row]:
        from sqlalchemy import inspect

        with self._open().connect() as connection:
            there = inspect(connection).has_table("gamma_schema")
            return _execute(connection, _SCHEMA, {}) if there else []

    def _refuse_newer(self, found: Sequence[Row]) -> None:
        for (version,) in found:
            if version not in VERSIONS:
                raise WrongSchema(
                    f"The ledger at {self.place} has schema {version}, and this Gamma knows up to {HEAD}: "
                    "a newer Gamma has used it. Upgrade this one."
                )
        self._known = True

    @contextmanager
    def _reported(self, verb: str) -> Iterator[None]:
        """What the database or its driver says, as a StoreError."""
        from sqlalchemy.exc import DBAPIError

        try:
            yield
        except DBAPIError as error:
            raise self._failed(verb, error.orig) from None
        except OSError as error:
            raise self._failed(verb, error) from None

    def _failed(self, verb: str, error: BaseException | None) -> StoreError:
        if type(error) is sqlite3.DatabaseError:  # its subclasses say that the statement was wrong, or locks
            return StoreError(
                f"The ledger {self.file} is damaged: {error}. "
                "Move it away and restore it from a backup; without one, Gamma adopts what it finds."
            )
        said = str(error).strip().rstrip(".")
        hint = "" if self.file else " Check that it is running, and the URL in GAMMA_LEDGER."
        return StoreError(f"The ledger at {self.place} cannot be {verb}: {said}.{hint}")


class Writing:
    """The open transaction."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def rows(self, statement: str, **parameters: Any) -> list[Row]:
        return _execute(self._connection, statement, parameters)

    def change(self, statement: str, **parameters: Any) -> int:
        """Run a statement; the number of rows it touched."""
        from sqlalchemy import text

        return self._connection.execute(text(statement), parameters).rowcount

    def insert(self, statement: str, many: Sequence[Parameters]) -> None:
        from sqlalchemy import text

        if many:
            self._connection.execute(text(statement), list(many))


def _execute(connection: "Connection", statement: str, parameters: Parameters) -> list[Row]:
    from sqlalchemy import text

    return [tuple(row) for row in connection.execute(text(statement), parameters)]


def with_driver(url: str) -> str:
    """PostgreSQL through psycopg2, which Gamma installs, whatever SQLAlchemy's default is."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg2://" + url.removeprefix(scheme)
    return url


def _engine(url: str, file: Path | None) -> "Engine":
    from sqlalchemy import create_engine, event

    if file is None:
        return create_engine(url, pool_size=2, pool_pre_ping=True)
    engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, _record: Any) -> None:
        # The driver's own transaction handling would begin late and read a stale snapshot.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a commit has reached the disk when it returns

    @event.listens_for(engine, "begin")
    def _immediate(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
