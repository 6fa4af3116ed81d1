"""The dossier tells a reviewer the verdict first and everything behind it; it holds no text of any item or answer
unless that is asked for, works where a part is missing, and is the same every time."""

import re
from collections import Counter
from html import escape as in_html
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from data_contracts.digests import sha256_bytes
from data_contracts.errors import Refused
from data_contracts.verdicts import EvalResult, GateVerdict
from evals.item_text import asked
from evals.policy import GatePolicy
from evals.report import Report, Texts, sections
from evals.suite import Suite, load_suites
from pipelines.cli import app
from pipelines.stages.release import dossier
from pipelines.stages.release.card_diff import by_section, diff_cards
from tests.support.dossier import SAID, Judged, judged
from tests.support.line import SmallLine

CHAPTERS = ["gate", "lost", "measured", "safety", "training", "data", "cost", "changes", "card", "made-from"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Judged, Report]:
    """No champion is live yet."""
    made = judged(tmp_path_factory.mktemp("first"))
    return made, dossier.of_verdict(made.line, made.product, made.verdict)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> tuple[Judged, Report]:
    """There is a champion; the recipe ends with SFT."""
    made = judged(tmp_path_factory.mktemp("second"), with_champion=True, stages=("sft",))
    return made, dossier.of_verdict(made.line, made.product, made.verdict)


class Structure(HTMLParser):
    """Headings in order, ids, and tables without a caption or a label on the box around them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.unnamed: list[str] = []
        self.images: list[str | None] = []
        self.box = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.ids += [str(given["id"])] if "id" in given else []
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "div":
            self.box = str(given.get("aria-label") or given.get("aria-labelledby") or "")
        if tag == "table" and not self.box:
            self.unnamed.append(self.get_starttag_text() or "")
        if tag == "svg":
            self.images.append(given.get("role"))


def words(html: str) -> str:
    text = re.sub(r"<style>.*?</style>|<head>.*?</head>|<[^>]+>", " ", html, flags=re.DOTALL)
    return " ".join(text.split())


def test_the_verdict_comes_first_in_both_pages(first: tuple[Judged, Report]) -> None:
    made, report = first
    decision, reason = made.verdict.decision, made.verdict.reason
    assert report.markdown.startswith(f"# {decision.upper()}: billing-assistant\n\n{reason}")
    assert words(report.html).startswith(f"{decision.capitalize()}: billing-assistant {reason.capitalize()}.")


def test_every_criterion_metric_and_digest_is_shown(first: tuple[Judged, Report]) -> None:
    made, report = first
    for page in (report.html, report.markdown):
        assert "Synthetic data" in page
        assert all(criterion.name in page for criterion in made.verdict.criteria)
        assert all(metric in page for suite in load_suites(made.product) for metric in suite.metrics)
        assert all(each in page for each in (made.model.weights, made.model.base, made.verdict.digest))


def test_the_drawing_of_the_effects_says_in_words_what_the_table_says(first: tuple[Judged, Report]) -> None:
    made, report = first
    described = re.search(r"<desc[^>]*>(.*?)</desc>", report.html)
    assert described is not None
    for c in made.verdict.criteria:
        assert f"{c.name}: {c.effect:+.3f}, from {c.ci_low:+.3f} to {c.ci_high:+.3f}" in described[1]
        assert f"{c.effect:+.3f}<br><small>[{c.ci_low:+.3f}, {c.ci_high:+.3f}]" in report.html


def test_the_noise_floor_of_each_comparison_is_told_and_why_there_is_none(
    first: tuple[Judged, Report],
) -> None:
    made, report = first
    for page in (words(report.html), report.markdown):
        assert "not measured" in page
        assert "the policy asks for no seeds" in page
        assert "another seed would give the same" in page
    assert words(report.html).count("noise floor not measured") == sum(
        each.kind in ("superiority", "non-inferiority") for each in made.verdict.criteria
    )
    known = tuple(each.model_copy(update={"noise": 0.03}) for each in made.verdict.criteria)
    told = dossier.of_verdict(made.line, made.product, made.verdict.model_copy(update={"criteria": known}))
    assert "noise floor 0.030" in words(told.html)
    assert "| 0.030 | **" in told.markdown
    assert "asks for no seeds" not in told.html + told.markdown


def test_a_share_has_the_interval_that_the_gate_judged(first: tuple[Judged, Report]) -> None:
    made, report = first
    floors = [each for each in made.verdict.criteria if each.kind == "floor"]
    assert floors
    for each in floors:
        low, high = each.ci_low + each.margin, each.ci_high + each.margin
        assert f"{each.candidate_mean:.3f}<br><small>[{low:.3f}, {high:.3f}]" in report.html


def test_data_sweep_contamination_and_the_lack_of_a_run_record_are_told(first: tuple[Judged, Report]) -> None:
    text = words(first[1].html)
    assert "decontaminated 3 2 exact-duplicate: 1 100 %" in text
    assert "272 evaluation items were looked for; no row holds one." in text
    assert "personal data and secrets replaced PERSON 3" in text
    assert "4 0.5250 not measured chosen" in text
    assert "No run of these checkpoints is on record here." in text


def test_what_was_recited_of_planted_canaries_is_shown_by_kind(first: tuple[Judged, Report]) -> None:
    report = first[1]
    assert re.search(
        r"\| extraction: every canary.* \| 8 \| 0\.000 \[0\.000, 0\.3[67]\d\] \| 0\.250 \[", report.markdown
    )
    assert re.search(r"extraction_left: .*\| 2 \| 0\.000 \[.*\| 1\.000 \[", report.markdown)
    assert re.search(r"extraction_removed: .*\| 6 \|.*\| 0\.000 \[", report.markdown)
    assert re.search(r"guessed: .*\| 8 \|.*\| 0\.000 \[", report.markdown)
    assert "Planted canaries" in report.html


def test_without_a_champion_it_says_so_and_with_one_it_shows_items_and_card_side_by_side(
    first: tuple[Judged, Report], second: tuple[Judged, Report]
) -> None:
    assert "There is no champion to compare with" in words(first[1].html)
    made, report = second
    text = words(report.html)
    assert made.champion is not None
    assert f"Against the card of champion {made.champion.digest}" in text
    assert "Against the champion:" in text
    assert re.search(r"tools-001 Just off a night shift [^.]*\. [^?]*\? nurse 1 1 0", text), "all three on one line"
    assert f"removed: - weights: `{made.champion.weights}` added: - weights: `{made.model.weights}`" in text
    assert "Unchanged: " in text
    assert f"- - weights: `{made.champion.weights}`" in report.markdown
    assert "sft: validation at the steps" in text
    assert "preference: validation at the steps" not in text


def test_no_answer_is_in_it_and_of_goldens_written_for_the_project_the_page_shows_the_message(
    first: tuple[Judged, Report], second: tuple[Judged, Report]
) -> None:
    for made, report in (first, second):
        assert SAID not in report.html + report.markdown
        items = {item.id: item.text for suite in load_suites(made.product) for item in suite.items()}
        assert not [item for item, text in items.items() if text in report.markdown], "Dagster logs the Markdown"
        assert "tools-001" in report.markdown
        assert in_html(items["tools-001"]) in report.html
        assert "tools on offer" not in report.html


def test_messages_of_other_suites_and_of_one_that_was_changed_since_are_not_shown(first: tuple[Judged, Report]) -> None:
    made = first[0]
    store = made.line.store
    results = {name: store.get_manifest(digest, EvalResult) for name, digest in made.verdict.results.items()}
    policy = store.get_manifest(made.verdict.policy, GatePolicy)

    def shown(suite: Suite, texts: Texts | None = None, **changed: object) -> set[str]:
        of_this = {name: each.model_copy(update=changed) for name, each in results.items() if each.suite == suite.name}
        (section,) = sections(policy, [suite], of_this, texts)
        return {item.asked for item in section.by_item[0].items}

    suite = next(suite for suite in load_suites(made.product) if suite.name == "billing-tools")
    texts = {item.text for item in suite.items()}
    assert shown(suite) == texts
    assert shown(suite, {}) == {asked(item) for item in suite.items()}
    assert shown(suite, suite_digest=sha256_bytes(b"another edition")) == {""}
    bought = suite.model_copy(update={"origin": "published"})
    assert shown(bought, suite_digest=bought.content_digest()) == {""}


def test_a_suite_that_lies_elsewhere_keeps_its_messages_to_itself(tmp_path: Path) -> None:
    small = SmallLine(tmp_path)
    page = dossier.of_release(small.parts, small.product, small.release()).html
    assert ">i8<" in page
    assert "question 8" not in page


def test_items_lost_are_listed_for_every_metric_that_a_criterion_gates(second: tuple[Judged, Report]) -> None:
    made, report = second
    for criterion in made.verdict.criteria:
        assert f"{criterion.suite}, {criterion.metric}</h3>" in report.html
        assert f"- {criterion.suite}, {criterion.metric}: against the base" in report.markdown
    assert "billing-tools, ragas_tool_call_accuracy</h3>" not in report.html
    assert words(report.html).count("items of billing-tools got worse, json_valid") == 1
    assert "Every item of billing-conduct, must_not_call" in words(report.html)


def test_a_fall_that_no_criterion_gates_is_named_beside_the_verdict_and_in_the_card(tmp_path: Path) -> None:
    forgot = judged(tmp_path, right=lambda subject, n: subject == "base")
    report = dossier.of_verdict(forgot.line, forgot.product, forgot.verdict)
    head = words(report.html[report.html.index("<header") : report.html.index("</header>")])
    assert "Known losses , which no criterion gates: whoever approves accepts them." in head
    assert re.search(r"billing-unseen-tools: [^:]*\bexact 0\.000 \(base 1\.000\)", head)
    assert not re.search(r"billing-tools: [^:]*\bexact ", head), "a criterion gates it"
    assert "planted-canaries" not in head
    assert report.markdown.index("Known losses") < report.markdown.index("| criterion |")
    card = words(report.html[report.html.index('<section aria-labelledby="card">') :])
    assert "billing-unseen-tools / exact (1.000 -&gt; 0.000)" in card
    assert "Known loss against the base, which no criterion gates: billing-unseen-tools / exact, 1.000 before" in card
    assert "Worse than the base: billing-tools / exact, 1.000 before" in card


def test_nothing_is_said_of_losses_where_there_are_none(first: tuple[Judged, Report]) -> None:
    assert "Known loss" not in first[1].html + first[1].markdown


def test_the_page_needs_nothing_from_outside(second: tuple[Judged, Report]) -> None:
    html = second[1].html
    assert not re.search(r"<(script|link|img|iframe|object)\b|url\((?!#)|@import", html)
    assert not re.search(r'(src|href)="(?!#)', html)


@pytest.mark.parametrize("which", ["first", "second"])
def test_it_can_be_walked_through_by_ear(which: str, request: pytest.FixtureRequest) -> None:
    html = request.getfixturevalue(which)[1].html
    found = Structure(html)
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    steps = zip(found.headings, found.headings[1:], strict=False)
    assert [pair for pair in steps if pair[1] > pair[0] + 1] == []
    assert [each for each in CHAPTERS if each not in found.ids] == []
    assert len(found.ids) == len(set(found.ids))
    assert found.unnamed == []
    assert set(found.images) == {"img"}
    assert '<html lang="en">' in html
    assert html.count("<main>") == 1


def test_what_is_said_in_names_is_text_and_never_markup(tmp_path: Path) -> None:
    made = judged(tmp_path)
    hostile = made.product.model_copy(update={"description": "<script>alert(1)</script> & more"})
    html = dossier.of_verdict(made.line, hostile, made.verdict).html
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html


def test_it_is_the_same_every_time(first: tuple[Judged, Report]) -> None:
    made, report = first
    assert dossier.of_verdict(made.line, made.product, made.verdict) == report


def test_texts_are_shown_only_where_they_are_asked_for_and_not_after_erasure(tmp_path: Path) -> None:
    made = judged(tmp_path, with_champion=True, stages=("sft",))
    line, product, release = made.line, made.product, made.champion
    assert release is not None
    verdict = line.store.get_manifest(release.verdict, GateVerdict)
    assert SAID not in dossier.of_release(line, product, release).html
    told = dossier.of_release(line, product, release, with_texts=True)
    assert f"{SAID}, says candidate" in told.html
    assert "tools on offer: get_invoice(invoice_id)" in told.html
    assert SAID not in told.markdown
    samples = {line.store.get_json(digest)["samples"] for digest in verdict.results.values()} - {None}
    for each in samples:
        line.store.delete(each)
    again = dossier.of_release(line, product, release, with_texts=True).html
    assert SAID not in again
    assert "no text is kept" in again


def test_a_card_that_is_not_the_one_whose_difference_was_signed_is_refused(tmp_path: Path) -> None:
    small = SmallLine(tmp_path)
    release = small.release()
    store = small.parts.store
    card = store.get_bytes(release.card).decode()
    other = card.replace("Gate: **promote**", "Gate: **promote** by far")
    swapped = release.model_copy(update={"card": store.put_bytes(other.encode())})
    with pytest.raises(Refused, match="is not the difference"):
        dossier.of_release(small.parts, small.product, swapped)
    unnamed = other.replace(str(release.bom), sha256_bytes(b"another bill"))
    update = {"card": store.put_bytes(unnamed.encode()), "card_diff": store.put_bytes(diff_cards("", unnamed).encode())}
    with pytest.raises(Refused, match="does not name the bill of materials"):
        dossier.of_release(small.parts, small.product, release.model_copy(update=update))


def test_the_command_writes_it_and_keeps_quotations_out_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SmallLine(tmp_path)
    release = small.release()
    monkeypatch.setenv("ASSAY_HOME", str(small.parts.home))
    monkeypatch.setenv("ASSAY_PRODUCTS", str(small.folder / "products"))
    page = small.parts.home / "reports" / release.digest[7:23] / "report.html"
    page.unlink()
    done = CliRunner().invoke(app, ["dossier", release.digest[:20]])
    assert done.exit_code == 0, done.output
    assert str(page) in done.output.replace("\n", "")
    assert page.read_text().startswith("<!doctype html>")
    refused = CliRunner().invoke(app, ["dossier", release.digest, "--texts"])
    assert "--texts needs --out" in str(refused.exception)
    CliRunner().invoke(app, ["dossier", release.digest, "--texts", "--out", str(tmp_path / "mine")])
    mine = tmp_path / "mine" / "report.html"
    assert "Keep it to yourself" in mine.read_text()
    assert mine.stat().st_mode & 0o077 == 0


def test_a_difference_by_section_names_what_is_new_gone_changed_and_the_same() -> None:
    before = "---\nlicense: mit\n---\n\n# Card\n\nsame\n\n## Old\n\ngone\n\n## Rows\n\n- a: 1\n- b: 2\n"
    after = "---\nlicense: mit\n---\n\n# Card\n\nsame\n\n## Rows\n\n- a: 1\n- b: 3\n\n## New\n\nhere\n"
    differ, same = by_section(before, after)
    assert [(each.heading, each.change) for each in differ] == [("Rows", "changed"), ("New", "new"), ("Old", "gone")]
    assert [(line.sign, line.text) for line in differ[0].lines] == [("removed", "- b: 2"), ("added", "- b: 3")]
    assert same == ["Metadata", "Card"]
    assert by_section(after, after)[0] == []


@given(st.lists(st.sampled_from("abc xyz 123".split())), st.lists(st.sampled_from("abc xyz 123".split())))
def test_a_difference_loses_no_line_and_adds_none(before: list[str], after: list[str]) -> None:
    differ, _ = by_section("\n".join(["# Card", *before]), "\n".join(["# Card", *after]))
    lines = [line for each in differ for line in each.lines]
    gone = Counter(line.text for line in lines if line.sign == "removed")
    came = Counter(line.text for line in lines if line.sign == "added")
    assert Counter(before) - gone + came == Counter(after)
