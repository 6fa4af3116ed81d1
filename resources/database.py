"""A table store in SQLite (default) or PostgreSQL, under the SQL that both read. Parameters are marked ``?``."""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from data_contracts.errors import BadInput, Unavailable
from resources.sqlite import create, open_file

Value = str | bytes | int | None

_BATCH = 50_000
_SCHEMA_LOCK = 7_210_117_021
"""Number of the advisory lock under which tables are made: PostgreSQL does not wait where several make one at once."""
_PATIENCE_S = 600
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Session(Protocol):
    """One transaction."""

    def query(self, sql: str, parameters: Sequence[Value] = ()) -> list[Any]: ...
    def insert(self, table: str, rows: Sequence[Sequence[Value]]) -> int:
        """Add whole rows; one whose key is there already is left out. How many were added."""
        ...


class Database(Protocol):
    def session(self) -> AbstractContextManager[Session]:
        """Committed at the end, rolled back on an error."""
        ...


def column(database: Database, sql: str, *parameters: Value) -> list[Any]:
    """The first of what each row found has."""
    with database.session() as session:
        return [row[0] for row in session.query(sql, parameters)]


def number(database: Database, sql: str, *parameters: Value) -> int:
    return int(column(database, sql, *parameters)[0])


class SqliteDatabase:
    """``erases``: what is deleted is overwritten in the file."""

    def __init__(self, path: Path, tables: str, erases: bool = False) -> None:
        self.path, self._tables, self._erases = path, tables, erases
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None
        self._file = (0, 0)
        create(path, tables)

    @contextmanager
    def session(self) -> Iterator["_SqliteSession"]:
        """On a connection that is kept, since the last one to close writes the whole log back; one session at a
        time."""
        with self._lock, self._connected() as connection:
            yield _SqliteSession(connection)

    def _connected(self) -> sqlite3.Connection:
        """Another one in a child process, and when the file was taken away from under it."""
        if not self.path.exists():
            create(self.path, self._tables)
        file = os.getpid(), self.path.stat().st_ino
        if self._open is None or self._file != file:
            if self._open is not None and self._file[0] == file[0]:
                self._open.close()  # one that a parent opened is the parent's to close
            self._open, self._file = open_file(self.path, shared=True), file
            self._open.execute(f"pragma secure_delete = {'on' if self._erases else 'off'}")
            weakref.finalize(self, self._open.close)
        return self._open


class _SqliteSession:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def query(self, sql: str, parameters: Sequence[Value] = ()) -> list[Any]:
        return self._connection.execute(sql, parameters).fetchall()

    def insert(self, table: str, rows: Sequence[Sequence[Value]]) -> int:
        if not rows:
            return 0
        marks = ",".join("?" * len(rows[0]))
        return self._connection.executemany(
            f"insert into {table} values ({marks}) on conflict do nothing", rows
        ).rowcount


class PostgresDatabase:
    """``postgresql://USER:PASSWORD@HOST:PORT/NAME``; ``?host=/folder`` names a socket's folder, ``?sslmode=require``
    asks for TLS. ``setting`` is where the url was set, for messages. Raises `BadInput` for another url. It connects,
    and makes the tables, when it is first asked; a session raises `Unavailable` when the server cannot be reached or
    says nothing for ``seconds``."""

    def __init__(self, url: str, tables: str, setting: str, seconds: float = _PATIENCE_S) -> None:
        self._how, self._where = _connection(url, setting)
        self._how["timeout"] = seconds
        self._tables, self._setting = tables, setting
        self._lock = threading.Lock()
        self._open: Any = None
        self._process = 0
        self._made = False

    @contextmanager
    def session(self) -> Iterator["_PostgresSession"]:
        """On a connection that is kept, since a new one costs more than a question; one session at a time."""
        from pg8000 import dbapi

        with self._lock:
            connection = self._connected()
            try:
                yield _PostgresSession(connection)
                connection.commit()
            except BaseException as error:
                _close(connection)  # in whatever state it is: the next session gets another
                self._open = None
                if isinstance(error, dbapi.InterfaceError | TimeoutError):
                    raise self._unavailable(error) from error
                raise

    def _connected(self) -> Any:
        from pg8000 import dbapi

        dbapi.paramstyle = "qmark"
        if self._process == os.getpid() and self._open is not None:
            try:
                self._open.cursor().execute("select 1")
                return self._open
            except (dbapi.Error, OSError):
                _close(self._open)  # the server was restarted, or it hung up
        self._open = None
        try:
            connection = dbapi.connect(**self._how)
            if not self._made:
                _make(connection, self._tables)
        except (dbapi.InterfaceError, dbapi.DatabaseError, OSError) as error:
            raise self._unavailable(error) from error
        self._open, self._process, self._made = connection, os.getpid(), True
        weakref.finalize(self, _close, self._open)
        return self._open

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(f"PostgreSQL at {self._where} cannot be used: {error}; see {self._setting}")


def _make(connection: Any, tables: str) -> None:
    session = _PostgresSession(connection)
    session.query("select pg_advisory_xact_lock(?)", (_SCHEMA_LOCK,))
    for statement in filter(str.strip, tables.split(";")):
        session.query(statement)
    connection.commit()


def _close(connection: Any) -> None:
    from pg8000 import dbapi

    with suppress(dbapi.Error, OSError):
        connection.close()


class _PostgresSession:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def query(self, sql: str, parameters: Sequence[Value] = ()) -> list[Any]:
        cursor = self._connection.cursor()
        cursor.execute(sql, parameters)
        return list(cursor.fetchall()) if cursor.description else []

    def insert(self, table: str, rows: Sequence[Sequence[Value]]) -> int:
        """By COPY into a table of its own: a statement a row costs five times as much."""
        cursor = self._connection.cursor()
        cursor.execute(f"create temporary table fresh (like {table}) on commit drop")
        for start in range(0, len(rows), _BATCH):
            lines = ("\t".join(map(_copied, row)) for row in rows[start : start + _BATCH])
            cursor.execute("copy fresh from stdin", stream=BytesIO("\n".join(lines).encode()))
        cursor.execute(f"insert into {table} select * from fresh on conflict do nothing")
        added = int(cursor.rowcount)
        cursor.execute("drop table fresh")
        return added


def _copied(value: Value) -> str:
    """A value in the text format of PostgreSQL's COPY."""
    if isinstance(value, bytes):
        return f"\\\\x{value.hex()}"
    return "\\N" if value is None else str(value).translate(_ESCAPES)


def _connection(url: str, setting: str) -> tuple[dict[str, Any], str]:
    """What pg8000 needs, and how the place is called in a message, without the password."""
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    socket, tls = options.pop("host", ""), options.pop("sslmode", "disable") != "disable"
    if parts.scheme != "postgresql" or not parts.username or not parts.path.strip("/") or options:
        raise BadInput(f"{setting} is not of the form postgresql://USER:PASSWORD@HOST:PORT/NAME[?sslmode=require]")
    how: dict[str, Any] = {
        "user": parts.username,
        "password": parts.password,
        "database": parts.path.strip("/"),
        "port": parts.port or 5432,
        "ssl_context": tls or None,
    }
    place = {"unix_sock": f"{socket}/.s.PGSQL.{how['port']}"} if socket else {"host": parts.hostname or "localhost"}
    return how | place, f"{socket or parts.hostname}:{how['port']}/{how['database']}"
