"""The standing system under one process supervisor: supervisord (http://supervisord.org) on a private unix socket.

Whatever it starts carries a mark in its environment, so that `down` and a start after a crash find every descendant,
also those whose supervisor was killed.
"""

import os
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import psutil

from data_contracts.errors import BadInput, Unavailable
from data_contracts.frozen import Frozen
from resources.locks import FileLocks
from resources.processes import MARK, PROGRAM, end, owned

ROOT = Path(__file__).parents[1]
STOPPED = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


class Program(Frozen):
    """A program to keep alive. ``health``: path that answers below 500 when it is well; ``setting`` names its port."""

    name: str
    command: tuple[str, ...]
    port: int
    setting: str
    health: str
    environment: dict[str, str] = {}
    with_the_rest: bool = True
    """Started by a plain ``up``; a program that has no work yet is started by who needs it."""
    optional: bool = False
    """Most installations never need it: `status` tells of it once it was started."""


class ProgramStatus(Frozen):
    name: str
    state: str
    url: str
    healthy: bool
    detail: str


class Supervisor:
    """``run`` holds configuration, socket and lock; ``logs`` one rotated file a program; they run in ``folder``."""

    def __init__(self, run: Path, logs: Path, folder: Path, programs: Sequence[Program]) -> None:
        self.run = run
        self.logs = logs
        self.folder = folder
        self.programs = {program.name: program for program in programs}
        self.socket = run / "supervisor.sock"
        self.config = run / "supervisord.conf"
        if len(str(self.socket)) > 100:
            raise BadInput(
                f"{run} is too long a path for a unix socket (100 characters): set ASSAY_HOME to a shorter one"
            )

    def up(self, names: Iterable[str] | None = None, seconds: float = 300) -> list[ProgramStatus]:
        """Start programs (all that have work, when none is named) and wait until each is healthy.

        Raises `Unavailable` when a port is taken, or a program does not become healthy in time.
        """
        chosen = list(names) if names is not None else [p.name for p in self.programs.values() if p.with_the_rest]
        for name in chosen:
            self.start(name)
        deadline = time.monotonic() + seconds
        while sick := [s for s in self.status() if s.name in chosen and not s.healthy]:
            failed = [s.name for s in sick if s.state == "FATAL"]
            if failed or time.monotonic() > deadline:
                name = failed[0] if failed else sick[0].name
                raise Unavailable(f"{name} did not come up; its log ends with:\n{self.log_tail(name)}")
            time.sleep(0.3)
        return self.status()

    def start(self, name: str) -> None:
        """Start one program unless it runs. Does not wait for its health."""
        program = self.programs[name]
        with FileLocks(self.run).hold("supervisor"):
            self._ensure_daemon()
            if self.state(name) in STOPPED:
                if _listening(program.port):
                    raise Unavailable(f"port {program.port} for {name} is taken: set {program.setting} to a free port")
                self._call("startProcess", name, False)

    def stop(self, name: str) -> None:
        """Stop one program and its children; fine when it does not run."""
        with FileLocks(self.run).hold("supervisor"):
            if self._alive() and self.state(name) not in STOPPED:
                self._call("stopProcess", name, True)

    def down(self) -> None:
        """Stop everything that was ever started here, the supervisor last."""
        if not self.run.exists():
            return
        with FileLocks(self.run).hold("supervisor"):
            if self._alive():
                daemon = self._daemon_process()
                self._call("shutdown")
                if daemon is not None:
                    psutil.wait_procs([daemon], timeout=60)
            end(owned(str(self.run)))

    def state(self, name: str) -> str:
        """supervisord's word for it: RUNNING, STARTING, BACKOFF, FATAL, STOPPED, ..."""
        return str(self._info().get(name, {}).get("statename", "STOPPED"))

    def pid(self, name: str) -> int | None:
        """The process that runs now."""
        return self._info().get(name, {}).get("pid") or None

    def status(self) -> list[ProgramStatus]:
        """Every program with its state and, asked over HTTP, its health; optional ones unless they are stopped."""
        info = self._info()
        found = [(program, _status(program, info.get(program.name, {}))) for program in self.programs.values()]
        return [status for program, status in found if not (program.optional and status.state == "STOPPED")]

    def log_tail(self, name: str, lines: int = 15) -> str:
        path = self.logs / f"{name}.log"
        if not path.exists():
            return f"(no log at {path})"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])

    def _info(self) -> Mapping[str, Mapping[str, Any]]:
        if not self._alive():
            return {}
        processes = cast(list[dict[str, Any]], self._call("getAllProcessInfo"))
        return {process["name"]: process for process in processes}

    def _ensure_daemon(self) -> None:
        """A supervisord that knows the present configuration; leftovers of a killed one are ended first."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.run.chmod(0o700)
        alive = self._alive()
        self.config.write_text(_configuration(self))
        if alive:
            self._reread()
            return
        end(owned(str(self.run)))
        self.socket.unlink(missing_ok=True)
        with (self.logs / "supervisord.start.log").open("wb") as output:
            subprocess.run(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.config)],
                cwd=self.folder,
                env=os.environ | {MARK: str(self.run)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=True,
            )
        deadline = time.monotonic() + 20
        while not self._alive():
            if time.monotonic() > deadline:
                raise Unavailable(f"supervisord did not start: see {self.logs}/supervisord.log")
            time.sleep(0.05)

    def _reread(self) -> None:
        """Take over changed settings of programs that do not run; the others keep theirs until they are stopped."""
        added, changed, _ = cast(list[list[list[str]]], self._call("reloadConfig"))[0]
        idle = [name for name in changed if self.state(name) in STOPPED]
        for name in idle:
            self._call("removeProcessGroup", name)
        for name in (*added, *idle):
            self._call("addProcessGroup", name)

    def _alive(self) -> bool:
        if not self.socket.exists():
            return False
        try:
            return self._call("getState") is not None
        except OSError:
            return False

    def _call(self, method: str, *arguments: Any) -> object:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def _daemon_process(self) -> psutil.Process | None:
        pid = cast(int, self._call("getPID"))
        return psutil.Process(pid) if psutil.pid_exists(pid) else None


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _status(program: Program, info: Mapping[str, Any]) -> ProgramStatus:
    url = f"http://127.0.0.1:{program.port}"
    state = str(info.get("statename", "STOPPED"))
    healthy, detail = False, str(info.get("description", "not started"))
    if state == "RUNNING":
        try:
            answer = httpx.get(url + program.health, timeout=3, trust_env=False, verify=False)
            healthy = answer.status_code < 500
            detail = detail if healthy else f"{program.health} answers {answer.status_code}"
        except httpx.HTTPError as error:
            detail = f"not answering yet ({type(error).__name__})"
    return ProgramStatus(name=program.name, state=state, url=url, healthy=healthy, detail=detail)


def _configuration(supervisor: Supervisor) -> str:
    """supervisord's INI. Every program leads a process group that is stopped and killed as a whole."""
    user = "user=root\n" if os.geteuid() == 0 else ""
    head = f"""[supervisord]
logfile={supervisor.logs}/supervisord.log
logfile_maxbytes=5MB
logfile_backups=2
pidfile={supervisor.run}/supervisord.pid
childlogdir={supervisor.logs}
{user}
[unix_http_server]
file={supervisor.socket}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    return _escaped(head) + "".join(_section(program, supervisor) for program in supervisor.programs.values())


def _section(program: Program, supervisor: Supervisor) -> str:
    environment = program.environment | {MARK: str(supervisor.run), PROGRAM: program.name}
    command = (sys.executable, "-m", "resources.supervised", str(supervisor.folder), *program.command)
    if '"' in "".join([*environment.values(), *command]):
        raise BadInput(f'a setting of {program.name} holds a double quote ("), which its supervisor cannot pass on')
    quoted = ",".join(f'{name}="{value}"' for name, value in sorted(environment.items()))
    quoted_command = " ".join(f'"{part}"' for part in command)
    return _escaped(f"""
[program:{program.name}]
command={quoted_command}
directory={ROOT}
environment={quoted}
autostart=false
autorestart=true
startsecs=1
startretries=3
stopwaitsecs=20
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={supervisor.logs}/{program.name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
""")


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
