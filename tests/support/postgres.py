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
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server of its own, which listens on a socket in a folder of its own.

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
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "assay", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"],
        user=user,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    command = [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
    try:
        ask = [programs / "pg_isready", "-h", folder, "-q"]
        started = time.monotonic()
        while subprocess.run(ask).returncode != 0:
            if server.poll() is not None or time.monotonic() - started > 60:
                raise RuntimeError(f"PostgreSQL does not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield f"postgresql://assay@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown: it does not wait for clients
        server.wait(30)
        shutil.rmtree(folder)


def new_database(url: str) -> str:
    """The URL of an empty database on this server."""
    from pg8000 import dbapi

    name, folder = f"test_{os.urandom(6).hex()}", url.partition("host=")[2]
    with closing(dbapi.connect("assay", database="postgres", unix_sock=f"{folder}/.s.PGSQL.5432")) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"create database {name}")
    return url.replace("/postgres?", f"/{name}?")
