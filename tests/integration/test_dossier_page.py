"""The dossier in a browser: it does not scroll sideways on a phone, says nothing on the console, and axe-core finds
nothing to object to.

Skipped where there is no Chromium. axe-core (MPL-2.0) is no part of the project: ``npm pack axe-core``, unpack it, and
name its axe.min.js in ASSAY_AXE.
"""

import os
from pathlib import Path

import pytest

from pipelines.stages.release.dossier import of_verdict
from tests.support.browser import CHROMIUM, look
from tests.support.dossier import judged

PHONE, DESKTOP = 360, 1280
AXE = os.environ.get("ASSAY_AXE", "")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = judged(tmp_path_factory.mktemp("page"), with_champion=True)
    return of_verdict(made.line, made.product, made.verdict).html


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_it_fits_the_window_and_the_console_stays_empty(page: str, width: int, tmp_path: Path) -> None:
    seen = look(page, width, tmp_path)
    assert seen.width == width
    assert max(seen.closed, seen.open) <= width
    assert seen.console == []


def test_one_that_does_not_fit_or_complains_would_be_noticed(page: str, tmp_path: Path) -> None:
    broken = page.replace("<main>", '<main><p style="width: 2000px">wide</p><script>console.error("oh")</script>')
    seen = look(broken, PHONE, tmp_path)
    assert seen.closed > PHONE
    assert any("oh" in line for line in seen.console)


@pytest.mark.skipif(not AXE, reason="axe-core is not here: npm pack axe-core, and name its axe.min.js in ASSAY_AXE")
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_axe_finds_nothing(page: str, width: int, tmp_path: Path) -> None:
    seen = look(page, width, tmp_path, Path(AXE).read_text(encoding="utf-8"))
    assert seen.violations == []
    assert seen.passes > 30


@pytest.mark.skipif(not AXE, reason="axe-core is not here: npm pack axe-core, and name its axe.min.js in ASSAY_AXE")
def test_axe_would_notice(page: str, tmp_path: Path) -> None:
    broken = page.replace("<main>", '<main><img src="data:,"><p style="color: #ccc; background: #fff">faint</p>')
    rules = [rule for rule, _ in look(broken, PHONE, tmp_path, Path(AXE).read_text(encoding="utf-8")).violations]
    assert {"image-alt", "color-contrast"} <= set(rules)
