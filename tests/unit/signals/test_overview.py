"""The overview: what it tells of a product, what it leaves to others, and that it stands while a part is away."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from data_contracts.chain import ChainBroken
from data_contracts.digests import Digest
from data_contracts.errors import Refused, Unavailable
from data_contracts.manifests import ReleaseManifest
from pipelines import overview_cli
from pipelines.cli import app
from pipelines.settings import Settings
from pipelines.stages.release.review_page import make_review_page
from pipelines.stages.release.rollback import rollback
from pipelines.stages.serve.routes import challenging
from pipelines.stages.signals.overview import overview
from pipelines.stages.signals.overview_page import add_overviews
from pipelines.wiring import Line
from tests.support.line import SmallLine
from tests.support.pieces import NAME
from tests.support.ports import free_ports
from tests.support.serving import running
from tests.support.watched import CONSOLES, answer, drifted, look, watch

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallLine, ReleaseManifest, ReleaseManifest]:
    """A release that is live, and a candidate."""
    line = SmallLine(tmp_path_factory.mktemp("whole"))
    live = line.live()
    watch(line, live, NOW, HOSTILE)
    return line, live, line.release(1, line.model_of(live))


@pytest.fixture
def place(whole: tuple[SmallLine, ReleaseManifest, ReleaseManifest], tmp_path: Path) -> SmallLine:
    return whole[0].copied(tmp_path / "copy")


@pytest.fixture
def live(whole: tuple[SmallLine, ReleaseManifest, ReleaseManifest]) -> Digest:
    return whole[1].digest


@pytest.fixture
def candidate(whole: tuple[SmallLine, ReleaseManifest, ReleaseManifest]) -> ReleaseManifest:
    return whole[2]


def test_it_tells_what_is_live_since_when_and_what_stands_beside_it(
    place: SmallLine, live: Digest, candidate: ReleaseManifest
) -> None:
    promoted = next(r for r in place.parts.log.records() if r.event == "promotion.recorded")
    place.approve(candidate)
    with challenging(place.parts, place.product, candidate.digest):
        it = look(place, NOW)
    assert (it.live, it.since, it.state, it.previous) == (live, promoted.time, "production", None)
    assert it.challenger == candidate.digest
    assert [one.release for one in it.pending] == [candidate.digest]
    assert look(place, NOW).challenger is None

    place.promote(candidate)
    it = look(place, NOW)
    assert (it.live, it.previous) == (candidate.digest, live)
    rollback(place.parts, place.product, "wrong refunds", actor="test")
    it = look(place, NOW)
    assert (it.live, it.locked.partition(" (")[0]) == (live, "rolled back")
    assert "rollback" in [alert.kind for alert in it.alerts]


def test_health_counts_the_last_hour_of_the_live_release_and_of_no_other_tenant(place: SmallLine) -> None:
    answer(place, 90, NOW, place.base.digest)
    answer(place, 91, NOW, look(place, NOW).live, tenant="somebody-else")
    assert place.parts.traces.flush()
    it = look(place, NOW)
    assert it.answered is not None
    assert (it.answered.answers, it.answered.failed) == (5, 1)
    assert it.unwell == ["vllm"]


def test_drift_decision_and_what_holds_it_are_told(place: SmallLine, live: Digest) -> None:
    it = look(place, NOW)
    assert it.drift is not None
    assert (it.drift.report, it.drift.of_live) == (drifted(NAME, live), True)
    assert it.decided is not None
    assert (it.decided.decision.decision, it.decided.decision.held_by) == ("hold", "incident")
    assert [(each.by, each.reason) for each in it.decided.disputes] == [("cli:bob", HOSTILE)]
    (held,) = it.held
    assert held.endswith(HOSTILE)
    assert it.next_decision == "when the schedule looks after whoever holds it lets go"
    assert [alert.kind for alert in it.alerts] == ["drift", "retraining-held"]
    (place.parts.home / "freeze.yaml").write_text("windows: [{owner: ada}]")
    assert "everything is frozen" in look(place, NOW).held[0]


def test_cost_is_of_this_month_and_of_this_product_and_tenant(place: SmallLine) -> None:
    answer(place, 90, NOW, None, product="other")
    answer(place, 91, NOW, None, tenant="somebody-else")
    answer(place, 92, NOW - timedelta(days=20), None)
    assert place.parts.traces.flush()
    it = look(place, NOW)
    assert it.cost is not None
    assert (it.cost.runs, it.cost.gpu_minutes, it.cost.requests) == (1, 10.0, 7)
    assert it.cost.total == pytest.approx(10 * 0.05 + 7 * 0.2 + 0.7 * 0.6)
    assert it.currency == "EUR"
    assert look(place, NOW + timedelta(days=30)).cost is None


def test_a_part_that_is_away_is_named_and_the_rest_is_told(place: SmallLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise Unavailable("the trace store does not answer")

    monkeypatch.setattr(place.parts.traces, "saw", away)
    monkeypatch.setattr(place.parts.traces, "usage", away)
    (place.parts.home / "prices.yaml").write_text("currency: EUR")
    (place.parts.home / "routes.json").write_text("not json")
    it = overview(place.parts, place.parts.products(), NAME, lambda: away() or (), CONSOLES, NOW)
    assert (it.answered, it.cost, it.programs) == (None, None, ())
    assert [fault.partition(":")[0] for fault in it.faults] == ["prices", "routes", "programs", "traces", "cost"]
    assert it.drift is not None


def test_no_trace_is_read_one_by_one(place: SmallLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("get", "recent", "since", "shadows"):
        monkeypatch.delattr(type(place.parts.traces), name)
    assert look(place, NOW).faults == ()


def test_a_product_about_which_nothing_is_known_yet(tmp_path: Path) -> None:
    line = SmallLine(tmp_path)
    it = look(line, NOW)
    assert (it.live, it.since, it.answered, it.drift, it.decided, it.cost) == (None,) * 6
    assert (it.alerts, it.faults, it.pending) == ((), (), ())
    assert "once a release is live" in it.next_decision
    with pytest.raises(Refused, match="no product 'other'"):
        look(line, NOW, "other")
    for reason in ("one", "two"):
        line.parts.log.append("incident.opened", "*", {"reason": reason}, actor="test")
    line.parts.log.path.write_bytes(b"")
    with pytest.raises(ChainBroken):
        look(line, NOW)


@pytest.fixture
def client(place: SmallLine) -> Iterator[httpx.Client]:
    page = make_review_page(place.parts, place.parts.products)
    add_overviews(page, lambda name: look(place, NOW, name))
    with running(page, free_ports(1)[0]) as url, httpx.Client(base_url=url, verify=False, trust_env=False) as client:
        yield client


def test_the_page_shows_it_without_a_script_and_leads_to_programs_of_this_machine_only(
    client: httpx.Client, live: Digest, candidate: ReleaseManifest
) -> None:
    assert f'href="/product/{NAME}"' in client.get("/").text
    answer = client.get(f"/product/{NAME}")
    assert answer.status_code == 200
    assert (answer.headers["x-frame-options"], answer.headers["cache-control"]) == ("DENY", "no-store")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    shown = answer.text
    assert "<script" not in shown
    assert "style=" not in shown, "its policy would refuse it"
    assert "&lt;script&gt;alert(&#39;x&#39;)" in shown
    links = re.findall(r'href="([^"]+)"', shown)
    assert {f"/dossier/{live}", f"/dossier/{candidate.digest}", "/"} <= set(links)
    assert f"{CONSOLES.dagster}/assets/release/champion?view=partitions&amp;partition={NAME}" in links
    assert [link for link in links if not link.startswith(("/", "http://127.0.0.1:"))] == []
    assert f"assay review {candidate.digest} --key" in shown
    assert shown.count("<svg") == 3
    assert shown.count('class="over"') == 4
    for part in (
        "docs/runbooks/drift.md",
        "5 answers of the live release",
        "1 failed",
        "2.32 EUR",
        "not healthy",
        "no words are kept",
    ):
        assert part in shown


def test_a_product_that_does_not_exist_is_said_so(client: httpx.Client) -> None:
    for name in ("nothing", "%3Cscript%3Ealert(1)%3C%2Fscript%3E", "..%2F..%2Fetc"):
        answer = client.get(f"/product/{name}")
        assert answer.status_code == 404
        assert "<script" not in answer.text
    assert client.post(f"/product/{NAME}").status_code == 405


def test_the_command_tells_the_same(
    place: SmallLine, live: Digest, candidate: ReleaseManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview_cli, "Line", lambda: place.parts)
    monkeypatch.setattr(overview_cli, "overview_of", lambda line, name: look(place, NOW, name))
    shown = CliRunner().invoke(app, ["overview", NAME]).output
    for part in (
        f"live        {live} since",
        "health      not healthy: vllm",
        "last hour   5 answers of the live release, 1 failed",
        "drift       drifted: tool",
        "decision    hold",
        f"disputed    by cli:bob: {HOSTILE}",
        f"pending     {candidate.digest} waits: assay review",
        "docs/runbooks/drift.md",
        "; 2.32 EUR",
    ):
        assert part in shown
    told = json.loads(CliRunner().invoke(app, ["overview", NAME, "--json"]).output)
    assert (told["live"], told["cost"]["requests"], told["held"][0][-9:]) == (live, 7, "</script>")


def test_links_hold_no_password_of_the_settings(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, mlflow_uri="https://ada:T0PS3CRET@mlflow.example:5000/base/?token=T0PS3CRET")
    assert Line(settings).consoles.mlflow == "https://mlflow.example:5000/base"
    stored = Settings(home=tmp_path, mlflow_uri="postgresql://ada:T0PS3CRET@db/mlflow", mlflow_port=5001)
    assert Line(stored).consoles.mlflow == "http://127.0.0.1:5001"


def test_another_product_has_nothing_of_this_one(place: SmallLine) -> None:
    path = place.folder / "products" / f"{NAME}.yaml"
    other = yaml.safe_load(path.read_text()) | {"name": "other", "tenant": "zeta"}
    path.with_name("other.yaml").write_text(yaml.safe_dump(other))
    it = look(place, NOW, "other")
    assert (it.product, it.tenant, it.live, it.cost) == ("other", "zeta", None, None)
    assert it.alerts == ()
    assert it.pending == ()
    assert NAME not in json.dumps(it.payload())
