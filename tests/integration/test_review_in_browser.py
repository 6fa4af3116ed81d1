"""The review page and an overview in a browser: they fit a phone and a desk, axe-core finds nothing, the review page's
script runs under its own policy, and a dossier is drawn whole under a stricter one.

Skipped where there is no Chromium.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import yaml
from pydantic import JsonValue

from data_contracts.digests import Digest, hex_of
from data_contracts.manifests import ReleaseManifest
from pipelines.stages.release.approval import accept, submit
from pipelines.stages.release.candidate import register
from pipelines.stages.release.dossier import of_verdict
from pipelines.stages.release.lifecycle import archive
from pipelines.stages.release.review_page import make_review_page
from pipelines.stages.release.rollback import rollback
from pipelines.stages.signals.overview_page import add_overviews
from tests.support.browser import CHROMIUM, look, visit
from tests.support.line import SmallLine
from tests.support.pieces import NAME
from tests.support.ports import free_ports
from tests.support.serving import running
from tests.support.watched import look as overview_of
from tests.support.watched import watch

PHONE, DESKTOP = 390, 1280
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
LONG = "refunds_without_an_invoice_" * 6
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


class Page(NamedTuple):
    url: str
    release: Digest


def with_dossier(line: SmallLine, seed: int) -> ReleaseManifest:
    model = line.candidate(seed)
    verdict = line.verdict(model)
    return register(line.parts, line.product, model, verdict, of_verdict(line.parts, line.product, verdict))[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A product with releases partly signed, rejected, rolled back, closed and unreadable; and a locked one."""
    line = SmallLine(tmp_path_factory.mktemp("line"), signatures=2)
    archive(line.parts, line.release(seed=8).digest, LONG, "test")
    first = with_dossier(line, 0)
    for person in ("alice", "bob"):
        line.approve(first, person)
    line.promote(first)
    rollback(line.parts, line.product, LONG, actor="test")
    line.explain_rollback()
    signed, rejected, hurt = (with_dossier(line, seed) for seed in (1, 2, 3))
    line.approve(signed, "alice")
    one = line.signed(signed, "bob")
    submit(line.parts, signed.digest, one.statement, one.signature)
    accept(line.parts, line.product, line.signed(rejected, "bob", "reject", LONG))
    path = line.folder / "products" / f"{NAME}.yaml"
    product = yaml.safe_load(path.read_text())
    product["approval"]["spot_checks"] = {"at_least": 6, "signers": 2, "agree": 0.8}
    path.write_text(yaml.safe_dump(product))
    line.product = line.parts.product(NAME)
    with_dossier(line, 4)
    name = hex_of(hurt.digest)
    (line.parts.home / "store" / "blobs" / name[:2] / name).write_bytes(b"{}")
    path.with_name("locked.yaml").write_text(yaml.safe_dump(product | {"name": "locked"}))
    body: dict[str, JsonValue] = {"environment": "production", "release": None, "from": None, "reason": LONG}
    line.parts.log.append("rollback.recorded", "locked", body, actor="test")
    with running(make_review_page(line.parts, line.parts.products), free_ports(1)[0]) as url:
        yield Page(url, signed.digest)


def fetched(url: str) -> str:
    return httpx.get(url, verify=False, trust_env=False).text


@pytest.fixture(scope="module")
def overview_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a product with everything to see: alerts, a program that is down, drift, a held retraining, candidates."""
    line = SmallLine(tmp_path_factory.mktemp("watched"))
    live = line.live()
    watch(line, live, NOW, LONG)
    line.release(1, line.model_of(live))
    (line.parts.home / "routes.json").write_text("not json")
    app = make_review_page(line.parts, line.parts.products)
    add_overviews(app, lambda name: overview_of(line, NOW, name))
    with running(app, free_ports(1)[0]) as url:
        yield f"{url}/product/{NAME}"


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_an_overview_fits_the_window_without_a_complaint_of_the_console_or_of_axe(
    overview_url: str, width: int, tmp_path: Path
) -> None:
    seen = look(fetched(overview_url), width, tmp_path)
    assert seen.width == width
    assert seen.closed <= width
    assert seen.console == []
    assert seen.violations == []
    assert seen.passes > 20


def test_an_overview_is_drawn_under_its_policy_without_a_complaint(overview_url: str, tmp_path: Path) -> None:
    document, console = visit(overview_url, tmp_path)
    assert console == []
    assert document.count("<svg") == 3


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("path", ["/", "/dossier/none"])
def test_it_fits_the_window_without_a_complaint_of_the_console_or_of_axe(
    page: Page, path: str, width: int, tmp_path: Path
) -> None:
    seen = look(fetched(page.url + path), width, tmp_path)
    assert seen.width == width
    assert max(seen.closed, seen.open) <= width
    assert seen.console == []
    assert seen.violations == []
    assert seen.passes > (25 if path == "/" else 10)


def test_its_script_runs_under_its_own_policy_and_shows_the_copy_buttons(page: Page, tmp_path: Path) -> None:
    assert fetched(page.url).count(" hidden>Copy") == fetched(page.url).count("<button") > 0
    document, console = visit(page.url, tmp_path)
    assert console == []
    assert "<button" in document
    assert "hidden" not in document.partition("<body>")[2].partition("<script")[0]


def test_a_dossier_is_drawn_under_its_policy_without_a_complaint(page: Page, tmp_path: Path) -> None:
    document, console = visit(f"{page.url}/dossier/{page.release}", tmp_path)
    assert console == []
    assert "<svg" in document
