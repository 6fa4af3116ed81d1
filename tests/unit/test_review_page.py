"""The review page as a browser meets it: what it shows, what it refuses, and that it changes nothing."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from data_contracts.chain import AuditRecord
from data_contracts.digests import hex_of
from data_contracts.manifests import ReleaseManifest
from pipelines.stages.release.approval import accept
from pipelines.stages.release.attestation import attestation_of
from pipelines.stages.release.review_page import make_review_page
from pipelines.stages.release.rollback import rollback
from pipelines.wiring import Line
from tests.support.line import SmallLine
from tests.support.pieces import NAME
from tests.support.ports import free_ports
from tests.support.serving import running

HOSTILE = "<script>alert('x')</script>"
OUTSIDE = re.compile(r"(?:src|href|action)=[\"'](?!/|#)", re.IGNORECASE)


class Place:
    def __init__(self, line: SmallLine, release: ReleaseManifest, client: httpx.Client) -> None:
        self.line, self.release, self.client = line, release, client

    def page(self, path: str = "/", status: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    def records(self) -> list[AuditRecord]:
        return self.line.parts.log.records()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallLine, ReleaseManifest]:
    line = SmallLine(tmp_path_factory.mktemp("whole"), signatures=2)
    return line, line.release()


@pytest.fixture
def place(whole: tuple[SmallLine, ReleaseManifest], tmp_path: Path) -> Iterator[Place]:
    line = whole[0].copied(tmp_path / "copy")
    page = make_review_page(line.parts, line.parts.products)
    with running(page, free_ports(1)[0]) as url, httpx.Client(base_url=url, verify=False, trust_env=False) as client:
        yield Place(line, whole[1], client)


def test_a_candidate_is_shown_with_its_dossier_and_the_commands(place: Place) -> None:
    place.line.approve(place.release, "alice")
    shown = place.page()
    assert "1 of 2: alice" in shown
    assert f'href="/dossier/{place.release.digest}"' in shown
    for verb in ("review", "approve", "reject"):
        assert f">assay {verb} {place.release.digest} --key ~/.ssh/id_ed25519" in shown
    assert place.page(f"/dossier/{place.release.digest}") == "<p>report</p>", "byte by byte as it was registered"


def test_what_is_live_and_what_locks_the_product_are_shown(place: Place) -> None:
    assert "Live: the base model." in place.page()
    for person in ("alice", "bob"):
        place.line.approve(place.release, person)
    place.line.promote(place.release)
    shown = place.page()
    assert f'Live: <code title="{place.release.digest}">' in shown
    assert "Nothing waits for a signature." in shown
    rollback(place.line.parts, place.line.product, "wrong refunds", actor="test")
    shown = place.page()
    assert "Nothing is approved now:</strong> rolled back (wrong refunds), and the root cause is due" in shown
    assert "assay root-cause small --help" in shown


def test_every_answer_keeps_other_pages_out(place: Place) -> None:
    paths = {"/": 200, f"/dossier/{place.release.digest}": 200, "/healthz": 200, "/nothing": 404}
    for path, status in paths.items():
        answer = place.client.get(path)
        assert answer.status_code == status
        headers = answer.headers
        assert (headers["x-frame-options"], headers["cache-control"]) == ("DENY", "no-store")
        assert headers["x-content-type-options"] == "nosniff"
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'none'")
        assert not OUTSIDE.search(answer.text)
        assert "<form" not in answer.text
        assert "set-cookie" not in headers


def test_only_the_pages_own_script_may_run_and_none_of_a_dossier(place: Place) -> None:
    first, second = place.client.get("/"), place.client.get("/")
    nonces = [re.findall(r"nonce-([\w-]+)", each.headers["content-security-policy"]) for each in (first, second)]
    assert len(set(nonces[0])) == 1
    assert nonces[0] != nonces[1]
    assert first.text.count(f'nonce="{nonces[0][0]}"') == 2
    assert first.text.count("<script") == 1
    dossier = place.client.get(f"/dossier/{place.release.digest}").headers["content-security-policy"]
    assert "sandbox" in dossier
    assert "script-src" not in dossier


def test_what_comes_from_data_is_text_and_never_markup(place: Place) -> None:
    accept(place.line.parts, place.line.product, place.line.signed(place.release, "bob", "reject", HOSTILE))
    strange = place.release.model_copy(update={"product": HOSTILE, "tenant": HOSTILE})
    body = {"release": place.line.parts.store.put_manifest(strange), "environment": HOSTILE}
    place.line.parts.log.append("release.registered", HOSTILE, body, actor="test")
    shown = place.page()
    assert "alert(" in shown
    assert "there is no file of product" in shown
    assert shown.count("<script") == 1
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in shown
    wrong = place.client.get("/dossier/" + HOSTILE.replace("/", "%2F").replace("<", "%3C"))
    assert wrong.status_code == 404
    assert HOSTILE not in wrong.text


def test_a_dossier_that_was_changed_is_refused_by_name(place: Place) -> None:
    attestation = attestation_of(place.line.parts, place.records(), place.release.digest)
    assert attestation is not None
    name = hex_of(attestation.files["report.html"])
    path = place.line.parts.home / "store" / "blobs" / name[:2] / name
    path.write_text("<p>all is well</p>")
    shown = place.page(f"/dossier/{place.release.digest}", 500)
    assert "all is well" not in shown
    assert f"report.html of release {place.release.digest} is not what was registered" in shown
    assert str(path) in shown
    assert "Waits" in place.page(), "the list goes on"


def test_an_id_that_is_none_or_is_not_registered_is_said_so(place: Place) -> None:
    assert "is not a registered release" in place.page(f"/dossier/{place.release.model}", 404)
    assert "is no release id" in place.page("/dossier/sha256:4f1c", 404)


def test_a_log_that_was_cut_is_shown_instead_of_a_list(place: Place) -> None:
    place.line.parts.log.path.write_bytes(b"")
    assert "audit log: " in place.page("/", 500)
    assert place.client.get("/healthz").json() == {"healthy": True}, "the page itself is well"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8104", "", "[::1]x"]
)
def test_another_hosts_name_is_refused(place: Place, host: str) -> None:
    for path in ("/", f"/dossier/{place.release.digest}"):
        answer = place.client.get(path, headers={"host": host})
        assert answer.status_code == 400
        assert "report" not in answer.text
    assert place.client.get("/", headers={"host": "localhost:8104"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_sent_to_it(place: Place, method: str) -> None:
    before = place.records()
    for path in ("/", f"/dossier/{place.release.digest}", "/healthz"):
        answer = place.client.request(method, path, content=b"decision=approve")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert place.records() == before


def test_the_supervisor_starts_it_tells_its_address_and_stops_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    small = SmallLine(tmp_path_factory.mktemp("up"))  # the path of a unix socket has to be short
    release = small.release()
    settings = small.parts.settings.model_copy(update={"review_port": free_ports(1)[0]})
    line = Line(settings)
    try:
        (status,) = (each for each in line.supervisor.up(["review"]) if each.name == "review")
        assert (status.healthy, status.url) == (True, line.review_url)
        assert release.digest in httpx.get(line.review_url, verify=False, trust_env=False).text
        overview = httpx.get(f"{line.review_url}/product/{NAME}", verify=False, trust_env=False)
        assert overview.status_code == 200
        assert '<dt>review</dt><dd><strong class="pass">healthy' in overview.text, "it asks the supervisor, and itself"
        assert '<dt>gateway</dt><dd><strong class="fail">not healthy' in overview.text
    finally:
        line.supervisor.down()
    assert line.supervisor.state("review") == "STOPPED"
    with pytest.raises(httpx.ConnectError):
        httpx.get(line.review_url, verify=False, trust_env=False)
