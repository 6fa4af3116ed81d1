"""A real PostgreSQL server for tests, from the binaries that the package pgserver carries, gone when it is closed."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil


class PostgresServer:
    """A server with data in ``folder``, on a socket there. What is killed can be started again."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self.url = f"postgresql://assay@/postgres?host={folder}"
        self._programs, self._folder, self._user = programs, folder, user
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ("-c", "listen_addresses=", "-c", "fsync=off")
        command = [self._programs / "postgres", "-D", self._folder / "data", "-k", self._folder, *options]
        ask = [self._programs / "pg_isready", "-h", self._folder, "-q"]
        with (self._folder / "log").open("wb") as log:
            self._server = subprocess.Popen(command, user=self._user, cwd=self._folder, stdout=log, stderr=log)
        started = time.monotonic()
        while subprocess.run(ask).returncode != 0:
            if self._server.poll() is not None or time.monotonic() - started > 60:
                raise RuntimeError(f"PostgreSQL does not start: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def signal(self, number: signal.Signals) -> None:
        """To it and its processes, each of which serves a connection or writes. SIGKILL: they are gone afterwards."""
        if self._server is None:
            raise RuntimeError("PostgreSQL does not run")
        family = [*psutil.Process(self._server.pid).children(), psutil.Process(self._server.pid)]
        for each in family[::-1]:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)
        if number == signal.SIGKILL:
            self._server.wait(30)
            psutil.wait_procs(family, 30)
            self._server = None

    def close(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)  # a fast shutdown: it does not wait for clients
            self._server.wait(30)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server of its own, started, which listens on a socket in a folder of its own.

    The package's Python code is left alone: as root it makes a user and opens folders to everybody. PostgreSQL refuses
    to run as root, so that root starts it as ``nobody``.
    """
    spec = importlib.util.find_spec("pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package pgserver is not installed: run `make setup`")
    programs = Path(spec.origin).parent / "pginstall" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="assay-pg-", dir="/tmp"))
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    plain = ("--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
    subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "assay", *plain],
        user=user,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    server = PostgresServer(programs, folder, user)
    try:
        server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of such a server."""
    with postgres_server() as server:
        yield server.url


def new_database(url: str) -> str:
    """The URL of an empty database on this server."""
    from pg8000 import dbapi

    name, folder = f"test_{os.urandom(6).hex()}", url.partition("host=")[2]
    with closing(dbapi.connect("assay", database="postgres", unix_sock=f"{folder}/.s.PGSQL.5432")) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"create database {name}")
    return url.replace("/postgres?", f"/{name}?")
