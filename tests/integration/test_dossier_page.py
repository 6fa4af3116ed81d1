"""The pages for people in a browser: they do not scroll sideways on a phone, say nothing on the console, and axe-core
finds nothing to object to.

Skipped where there is no Chromium.
"""

import json
from pathlib import Path

import pytest

from data_contracts.digests import sha256_bytes
from data_contracts.verdicts import ItemScore
from evals.payoff import compare_quality, pages, payoff
from evals.serving_speed import Answer, Served, Timed
from pipelines.stages.release.data_card import write_data_card
from pipelines.stages.release.dossier import of_verdict
from tests.support.browser import CHROMIUM, look
from tests.support.data import DataParts, product_of, run_line, simple_rows, write_contract
from tests.support.dossier import judged

PHONE, DESKTOP = 360, 1280
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


def dossier(folder: Path) -> str:
    made = judged(folder, with_champion=True)
    return of_verdict(made.line, made.product, made.verdict).html


def sheet(folder: Path) -> str:
    """A student twice as fast; one request failed on both."""
    failed = Answer(prompt=0, round=0, seconds=1, error="status 500")
    teacher, student = (
        Timed(
            answers=(failed, *(Answer(prompt=n, round=n, seconds=s, first_token_s=s / 2, tokens=9) for n in (1, 2))),
            busy_s=(s,) * 3,
        )
        for s in (1.0, 0.5)
    )
    big, small = (
        Served(name=name, url="u", model=f"{name}-of-a-long-name", price=1) for name in ("teacher", "student")
    )
    quality = compare_quality(scored(5), scored(2))
    made = payoff((big, small), (teacher, student), quality, sha256_bytes(b"prompts"), 2, 0, 16, "EUR")
    return pages(made)["payoff.html"]


def scored(wrong: int) -> list[ItemScore]:
    """20 items, one in so many of which is wrong."""
    return [ItemScore(item=f"i{n}", cluster=f"c{n}", scores={"exact": float(n % wrong > 0)}) for n in range(20)]


def data_card(folder: Path) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in simple_rows(40)))
    contract = write_contract(folder / "c.yaml", {"text": "string", "intent": "string"})
    source = {"url": str(folder / "rows.jsonl"), "contract": contract}
    product = product_of(folder, source | {"mapping": {"user": "{text}", "assistant": "{intent}"}})
    parts = DataParts(folder / "home")
    splits = run_line(parts, product)["splits"][0]
    return write_data_card(parts, splits.digest, folder / "card").read_text()


@pytest.fixture(scope="module", params=[dossier, sheet, data_card], ids=lambda make: make.__name__)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    html: str = request.param(tmp_path_factory.mktemp("page"))
    return html


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_it_fits_the_window_without_a_complaint_of_the_console_or_of_axe(page: str, width: int, tmp_path: Path) -> None:
    seen = look(page, width, tmp_path)
    assert seen.width == width
    assert max(seen.closed, seen.open) <= width
    assert seen.console == []
    assert seen.violations == []
    assert seen.passes > 25


def test_a_page_that_does_not_fit_complains_or_shuts_people_out_would_be_noticed(tmp_path: Path) -> None:
    faults = '<p style="width: 2000px">wide</p><script>console.error("oh")</script>'
    faults += '<img src="data:,"><p style="color: #ccc; background: #fff">faint</p>'
    seen = look(f"<!doctype html><html lang='en'><title>t</title><body>{faults}</body></html>", PHONE, tmp_path)
    assert seen.closed > PHONE
    assert any("oh" in line for line in seen.console)
    assert {"image-alt", "color-contrast"} <= {rule for rule, _ in seen.violations}
