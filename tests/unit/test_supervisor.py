"""supervisord as the one that keeps programs alive: small HTTP servers stand in for the real programs."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from data_contracts.errors import BadInput, Unavailable
from resources.processes import owned
from resources.supervisor import Program, Supervisor
from tests.support.ports import free_ports

SERVER = """
import http.server, os, subprocess, sys
print('100% started', os.environ['WORD'], flush=True)
if sys.argv[2] == 'child':
    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'], start_new_session=True)
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def program(name: str, port: int, script: Path, **more: object) -> Program:
    command = (sys.executable, str(script), str(port), "child" if name == "parent" else "alone")
    environment = {"WORD": "50% of, it's"}
    return Program(
        name=name, command=command, port=port, setting="ASSAY_X_PORT", health="/", environment=environment, **more
    )


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    made: list[Supervisor] = []

    def build(*names: str, ports: list[int] | None = None, **more: object) -> Supervisor:
        chosen = ports or free_ports(len(names))
        programs = [program(name, port, script, **more) for name, port in zip(names, chosen, strict=True)]
        made.append(Supervisor(tmp_path / "run", tmp_path / "logs", tmp_path, programs))
        return made[-1]

    yield build
    for supervisor in made:
        supervisor.down()


def ours(supervisor: Supervisor) -> list[psutil.Process]:
    return owned(str(supervisor.run))


def test_up_waits_for_health_and_down_leaves_no_process_behind(make: Callable[..., Supervisor]) -> None:
    supervisor = make("one", "parent")
    assert {(s.name, s.state, s.healthy) for s in supervisor.up()} == {
        ("one", "RUNNING", True),
        ("parent", "RUNNING", True),
    }
    assert "100% started 50% of, it's" in supervisor.log_tail("one")
    assert len(ours(supervisor)) == 4  # supervisord, both programs, the child in a session of its own
    assert os.stat(supervisor.socket).st_mode & 0o777 == 0o700
    supervisor.down()
    assert ours(supervisor) == []
    assert {s.state for s in supervisor.status()} == {"STOPPED"}


def test_a_killed_program_is_started_again(make: Callable[..., Supervisor]) -> None:
    supervisor = make("one")
    supervisor.up()
    (before,) = [p for p in ours(supervisor) if "server.py" in " ".join(p.cmdline())]
    before.kill()
    deadline = time.monotonic() + 20
    while not supervisor.status()[0].healthy or before.is_running():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_a_killed_program_left_behind_ends_before_it_is_started_again(make: Callable[..., Supervisor]) -> None:
    """A worker of its own would keep its port; other programs go on."""
    supervisor = make("parent", "other")
    supervisor.up()
    killed = supervisor.pid("parent")
    assert killed is not None
    (child,) = psutil.Process(killed).children()
    untouched = supervisor.pid("other")
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while supervisor.pid("parent") in (None, killed) or not all(s.healthy for s in supervisor.status()):
        assert time.monotonic() < deadline, supervisor.log_tail("parent")
        time.sleep(0.1)
    assert not child.is_running()
    assert supervisor.pid("other") == untouched


def test_after_the_supervisor_was_killed_up_works_and_down_finds_everything(make: Callable[..., Supervisor]) -> None:
    supervisor = make("one")
    supervisor.up()
    os.kill(int((supervisor.run / "supervisord.pid").read_text()), signal.SIGKILL)
    with socket.create_connection(("127.0.0.1", supervisor.programs["one"].port)):
        pass  # the orphan still holds its port
    assert [s.healthy for s in supervisor.up()] == [True]
    os.kill(int((supervisor.run / "supervisord.pid").read_text()), signal.SIGKILL)
    supervisor.down()
    assert ours(supervisor) == []


def test_a_taken_port_is_named_with_its_setting(make: Callable[..., Supervisor]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} for one is taken: set ASSAY_X_PORT"):
            make("one", ports=[port]).up()


def test_a_program_that_dies_at_once_is_reported_with_its_last_words(make: Callable[..., Supervisor]) -> None:
    supervisor = make("one", ports=[1])  # may not be opened, or not twice: either way the script ends
    script = supervisor.folder / "server.py"
    script.write_text("print('no such table'); raise SystemExit(3)")
    with pytest.raises(Unavailable, match="no such table"):
        supervisor.up(seconds=60)


def test_stop_start_and_a_changed_configuration(make: Callable[..., Supervisor]) -> None:
    supervisor = make("one", "later")
    supervisor.up(["one"])
    assert [s.state for s in supervisor.status()] == ["RUNNING", "STOPPED"]
    supervisor.stop("one")
    supervisor.stop("one")
    assert supervisor.state("one") == "STOPPED"
    again = make("one", "later")
    assert {s.name for s in again.up() if s.healthy} == {"one", "later"}


def test_a_program_that_waits_for_work_is_not_started_with_the_rest(make: Callable[..., Supervisor]) -> None:
    supervisor = make("one", with_the_rest=False)
    assert [s.state for s in supervisor.up()] == ["STOPPED"]


def test_what_few_installations_need_is_told_of_once_it_was_started(make: Callable[..., Supervisor]) -> None:
    supervisor = make("one", with_the_rest=False, optional=True)
    assert supervisor.up() == []
    assert [s.healthy for s in supervisor.up(["one"])] == [True]
    supervisor.stop("one")
    assert supervisor.status() == []


def test_a_path_too_long_for_a_socket_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="ASSAY_HOME"):
        Supervisor(tmp_path / ("x" * 120), tmp_path, tmp_path, [])
