"""Notices: told at least once, recorded, and never in the way of a move."""

import json
import logging
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from data_contracts.errors import BadInput
from data_contracts.lifecycle import follow
from data_contracts.manifests import ReleaseManifest
from pipelines.automation.notices import notices
from pipelines.settings import Settings
from pipelines.stages.release import lifecycle
from pipelines.stages.release.notices import deliver, due
from pipelines.stages.release.rollback import rollback
from pipelines.terminal import tell
from resources.notifier import AppriseNotifier
from tests.support.line import SmallLine

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise looks for it
SECRET = "T0PS3CRET"


class Hook:
    """An HTTP endpoint that keeps what it is sent. ``status``: what it answers."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.got.append({"path": self.path, **json.loads(body)})
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)

    def url(self, path: str = SECRET) -> str:
        return f"json://127.0.0.1:{self.server.server_port}/{path}"


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    thread = threading.Thread(target=hook.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield hook
    hook.server.shutdown()
    thread.join()
    hook.server.server_close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallLine, ReleaseManifest]:
    line = SmallLine(tmp_path_factory.mktemp("whole"))
    return line, line.live()


@pytest.fixture
def place(whole: tuple[SmallLine, ReleaseManifest], tmp_path: Path) -> tuple[SmallLine, ReleaseManifest]:
    line, release = whole
    return line.copied(tmp_path / "copy"), release


def tells(line: SmallLine, *urls: str) -> None:
    line.parts.__dict__["notifier"] = AppriseNotifier(" ".join(urls), line.parts.keyring.subject)


def sent(line: SmallLine) -> list[dict[str, Any]]:
    return [dict(record.body) for record in line.parts.log.records() if record.event == "notice.sent"]


def test_each_move_is_told_once_to_every_address_and_recorded_without_its_secrets(
    place: tuple[SmallLine, ReleaseManifest], hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    line, release = place
    caplog.set_level(logging.INFO)
    tells(line, hook.url(), hook.url("OTHER-S3CRET"))
    candidate = line.release(1, line.model_of(release))
    line.approve(candidate)
    with pytest.raises(Exception, match="the canary failed"):
        line.promote(candidate, "not JSON")
    lifecycle.deprecate(line.parts, release.digest, datetime(2099, 1, 1, tzinfo=UTC), "prices changed", "test")
    line.promote(candidate)
    lifecycle.retire(line.parts, release.digest, "its successor is live", "test")
    rollback(line.parts, line.product, "wrong refunds", "test")

    told = deliver(line.parts)

    first = [each["message"] for each in hook.got if each["path"] == f"/{SECRET}"]
    assert len(first) == 7
    assert first[0] == f"small (production): release {release.digest} is live, in place of the base model."
    assert f"the canary of release {candidate.digest} failed, the champion stays: 0 of 4 answers" in first[1]
    assert f"release {release.digest} is deprecated and answers until 2099-01-01T00:00:00+00:00: prices" in first[2]
    assert re.fullmatch(f"Over since .* the canary of release {candidate.digest} failed.*", first[3]), "it passed"
    assert f"release {candidate.digest} is live, in place of {release.digest}" in first[4]
    assert f"release {release.digest} is retired and never serves again" in first[5]
    assert "rolled back to the base model" in first[6]
    assert "wrong refunds" in first[6]
    for alert in (first[1], first[6]):
        assert [part for part in ("Evidence: ", "Done: ", "To do: ", "Runbook: docs/") if part not in alert] == []
    assert len(told.sent) == len(hook.got) == len(sent(line)) == 14
    assert {each["address"] for each in sent(line)} == set(line.parts.notifier.addresses)
    assert deliver(line.parts).sent == ()

    written = (line.folder / "home" / "chain" / "log.jsonl").read_text() + caplog.text
    assert "S3CRET" not in written + " ".join(line.parts.notifier.addresses)


def test_an_address_that_fails_changes_nothing_and_is_told_later(
    place: tuple[SmallLine, ReleaseManifest], hook: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    line, release = place
    hook.status = 500
    tells(line, hook.url(), "json://127.0.0.1:9/closed", "nosuchkind://S3CRET")
    lifecycle.deprecate(line.parts, release.digest, datetime(2099, 1, 1, tzinfo=UTC), "prices changed", "test")
    tell(line.parts)
    shown = capsys.readouterr().out
    assert shown.count("not told yet, tried again later") == 6  # a promotion and a deprecation, three addresses
    assert "is no address that Apprise knows" in shown
    assert "S3CRET" not in shown
    assert sent(line) == []
    assert follow(line.parts.log.records()).standings[release.digest].state == "deprecated"
    assert len(hook.got) == 1, "an address that fails is left for the next time"

    hook.status = 200
    context = dg.build_sensor_context(resources={"line": line.parts})
    result = notices(context)
    assert len(sent(line)) == 2
    assert str(result.skip_message).startswith("told json-")


def test_a_crash_before_the_record_tells_it_again(
    place: tuple[SmallLine, ReleaseManifest], hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, _ = place
    tells(line, hook.url())
    with monkeypatch.context() as crash:
        crash.setattr(type(line.parts.log), "append", lambda *args, **named: (_ for _ in ()).throw(OSError("power")))
        with pytest.raises(OSError, match="power"):
            deliver(line.parts)
        tell(line.parts)  # a command says so, and goes on
    deliver(line.parts)
    assert [each["message"] for each in hook.got] == [hook.got[0]["message"]] * 3
    assert len(sent(line)) == 1


def test_a_new_address_hears_of_the_last_week_only(place: tuple[SmallLine, ReleaseManifest]) -> None:
    line, _ = place
    records = line.parts.log.records()
    assert len(due(records, ["new"], datetime.now(UTC))) == 1
    assert due(records, ["new"], datetime.now(UTC) + timedelta(days=8)) == []


def test_an_address_is_in_no_dump_of_the_settings() -> None:
    settings = Settings(notify=f"json://host/{SECRET}")
    assert SECRET not in repr(settings) + settings.model_dump_json()
    with pytest.raises(BadInput, match="is no address"):
        AppriseNotifier(SECRET, lambda url: "12345678").send("unknown-12345678", "title", "text")
