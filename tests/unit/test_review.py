"""What waits for a reviewer, in each state that a release can be in, with real keys; and how the terminal tells it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.digests import Digest, hex_of
from data_contracts.errors import BadInput, Missing, Refused, Tampered
from data_contracts.manifests import ReleaseManifest
from pipelines import releases_cli, review_cli
from pipelines.cli import app
from pipelines.stages.release import approval
from pipelines.stages.release.approval import accept, pending, submit
from pipelines.stages.release.attestation import attestation_of
from pipelines.stages.release.files import kept_page, report_folder
from pipelines.stages.release.lifecycle import archive
from pipelines.stages.release.review import Candidate, Review, review
from pipelines.stages.release.rollback import rollback
from tests.support.line import SmallLine
from tests.support.pieces import NAME

Place = tuple[SmallLine, ReleaseManifest]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    line = SmallLine(tmp_path_factory.mktemp("whole"), signatures=2)
    return line, line.release()


@pytest.fixture
def place(whole: Place, tmp_path: Path) -> Place:
    return whole[0].copied(tmp_path / "copy"), whole[1]


def seen(line: SmallLine, now: datetime | None = None) -> Review:
    (found,) = review(line.parts, line.parts.products(), now or datetime.now(UTC))
    return found


def candidate(line: SmallLine, now: datetime | None = None) -> Candidate:
    (found,) = seen(line, now).candidates
    return found


def approved(line: SmallLine, release: ReleaseManifest) -> None:
    for person in ("alice", "bob"):
        line.approve(release, person)


def live(line: SmallLine, release: ReleaseManifest) -> ReleaseManifest:
    approved(line, release)
    line.promote(release)
    return release


def laid_in(line: SmallLine, release: ReleaseManifest, person: str) -> approval.Approval:
    one = line.signed(release, person)
    submit(line.parts, release.digest, one.statement, one.signature)
    return one


def spoil(line: SmallLine, digest: Digest) -> None:
    name = hex_of(digest)
    (line.parts.home / "store" / "blobs" / name[:2] / name).write_bytes(b"{}")


def changed_product(line: SmallLine, **approval_rule: object) -> None:
    path = line.folder / "products" / f"{NAME}.yaml"
    product = yaml.safe_load(path.read_text())
    product["approval"] |= approval_rule
    path.write_text(yaml.safe_dump(product))
    line.product = line.parts.product(NAME)


# The states.


def test_a_product_without_a_release_has_nothing_to_sign(tmp_path):
    line = SmallLine(tmp_path / "line")
    found = seen(line)
    assert (found.product, found.environment) == (NAME, "production")
    assert (found.live, found.since, found.locked) == (None, None, "")
    assert (found.candidates, found.aside, found.faults) == ((), (), ())


def test_a_registered_release_waits_for_all_its_signatures(place):
    line, release = place
    found = candidate(line)
    assert (found.release, found.state, found.missing) == (release.digest, "waits", ("0 of 2 signatures",))
    assert (found.verdict, found.displaces, found.words) == ("promote", None, ())
    assert "all 1 criteria pass" in found.why
    records = {record.event: record.time for record in line.parts.log.records()}
    assert (found.registered, found.trained) == (records["release.registered"], records["checkpoint.recorded"])
    assert found.method == "sft, lora"


def test_one_signature_of_two_is_told_with_the_name_and_until_when(place):
    line, release = place
    record = line.approve(release, "alice")
    found = candidate(line)
    assert (found.state, found.approved_by, found.missing) == ("waits", ["alice"], ("1 of 2 signatures",))
    (word,) = found.words
    assert (word.standing, word.chained) == ("counts", record.time)
    assert timedelta(0) < word.expires - record.time <= timedelta(hours=1)


def test_with_all_signatures_nothing_is_missing(place):
    line, release = place
    approved(line, release)
    found = candidate(line)
    assert (found.state, found.approved_by, found.missing) == ("approved", ["alice", "bob"], ())


def test_a_signature_in_the_inbox_waits_and_then_expires(place):
    line, release = place
    laid_in(line, release, "bob")
    assert [(w.principal, w.standing) for w in candidate(line).words] == [("bob", "waits")]
    (word,) = candidate(line, datetime.now(UTC) + timedelta(hours=2)).words
    assert (word.standing, word.reason) == ("void", "expired: sign again")
    assert candidate(line).missing == ("0 of 2 signatures",)


def test_a_refused_signature_shows_why_until_its_owner_signs_again(place):
    line, release = place
    one = laid_in(line, release, "bob")
    line.trust_root.write_text(line.trust_root.read_text().replace("bob ", "rob "))
    with pytest.raises(Refused):
        accept(line.parts, line.product, one)
    (word,) = candidate(line).words
    assert (word.principal, word.standing) == ("bob", "void")
    assert "not as bob" in word.reason
    line.trust_root.write_text(line.trust_root.read_text().replace("rob ", "bob "))
    line.approve(release, "bob")
    assert [w.standing for w in candidate(line).words] == ["counts"]


def test_a_rejection_stands_with_its_reason(place):
    line, release = place
    line.approve(release, "alice")
    accept(line.parts, line.product, line.signed(release, "bob", "reject", "refunds without an invoice"))
    found = candidate(line)
    assert found.state == "rejected"
    assert found.missing == ("bob rejected it: refunds without an invoice", "1 of 2 signatures")


def test_an_approval_whose_key_was_taken_out_of_the_trust_root_does_not_count(place):
    line, release = place
    approved(line, release)
    kept = [row for row in line.trust_root.read_text().splitlines() if not row.startswith("bob")]
    line.trust_root.write_text("\n".join(kept) + "\n")
    found = candidate(line)
    assert (found.state, found.approved_by, found.missing) == ("waits", ["alice"], ("1 of 2 signatures",))
    assert "a stranger's key" in found.words[1].reason


def test_what_was_promoted_is_live_since_then_and_what_it_overtook_is_superseded(place):
    line, release = place
    other, third = line.release(seed=1), line.release(seed=2)
    approved(line, release)
    promoted = line.promote(release)
    archive(line.parts, third.digest, "nobody wants it", "cli")
    found = seen(line)
    assert (found.live, found.since, found.candidates) == (release.digest, promoted.time, ())
    assert [(each.release, each.state) for each in found.aside] == [
        (third.digest, "archived"),
        (other.digest, "superseded"),
    ]
    assert found.aside[0].why == "nobody wants it"
    assert "compared with the base" in found.aside[1].why


def test_nothing_is_approved_after_a_rollback_until_its_cause_is_filed(place):
    line, release = place
    live(line, release)
    record = rollback(line.parts, line.product, "wrong refunds", actor="test")
    waiting = line.release(seed=2)
    found = seen(line)
    assert (found.live, found.since) == (None, record.time)
    assert found.locked == "rolled back (wrong refunds), and the root cause is due"
    assert [each.release for each in found.candidates] == [waiting.digest]
    assert found.candidates[0].missing == (found.locked, "0 of 2 signatures")
    assert ("rolled back", "wrong refunds") in {(each.state, each.why) for each in found.aside}
    line.explain_rollback()
    assert seen(line).locked == ""
    assert candidate(line).missing == ("0 of 2 signatures",)


def test_spot_checks_that_the_product_demands_are_missing_until_signed(place):
    line, _ = place
    changed_product(line, spot_checks={"at_least": 6, "signers": 1, "agree": 0.8})
    release = line.release(seed=1)
    (found,) = (each for each in seen(line).candidates if each.release == release.digest)
    assert found.rule.spot_checks is not None
    assert "0 of 1 people spot-checked the 6 answers" in found.missing[0]
    assert [command.split()[1] for _, command in found.commands] == [
        *("review", "spotcheck", "spotcheck", "approve", "reject")
    ]


def test_a_product_file_that_changed_or_went_is_in_the_way(place):
    line, _ = place
    changed_product(line, signatures=1)
    assert candidate(line).missing[0].startswith(f"the policy of product {NAME} is now ")
    assert candidate(line).missing[1:] == ("0 of 2 signatures",), "those that were asked for when it was registered"
    (line.folder / "products" / f"{NAME}.yaml").unlink()
    assert candidate(line).missing[0] == f"there is no file of product {NAME} in environment production"


def test_a_failed_canary_is_told_with_how_to_try_again(place):
    line, release = place
    approved(line, release)
    with pytest.raises(Refused, match="the canary failed"):
        line.promote(release, "no JSON")
    found = candidate(line)
    assert found.state == "waits"
    assert "its canary failed: " in found.missing[0]
    assert found.missing[0].endswith(f"assay promote {release.digest}")


@pytest.mark.parametrize("part", ["digest", "policy", "verdict"])
def test_one_release_that_cannot_be_read_does_not_hide_the_others(place, part):
    line, release = place
    other = line.release(seed=1)
    spoil(line, getattr(other, part) if part != "policy" else release.policy)
    found = seen(line)
    hurt = found.faults
    if part == "policy":  # both have it
        assert {each.release for each in hurt} == {release.digest, other.digest}
    else:
        assert [each.release for each in hurt] == [other.digest]
        assert [each.release for each in found.candidates] == [release.digest]
    assert "its bytes do not match its name" in hurt[0].why


def test_to_look_changes_nothing(place):
    line, release = place
    laid_in(line, release, "alice")
    inbox = line.parts.home / "approvals" / "inbox"
    (inbox / "nonsense.json").write_text("{")

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in line.parts.home.rglob("*") if path.is_file()}

    before = files()
    assert [word.principal for word in candidate(line).words] == ["alice"]
    assert files() == before
    assert len(pending(line.parts)) == 1, "this one sets it aside"
    assert not (inbox / "nonsense.json").exists()


def test_every_command_that_is_shown_can_be_given_as_it_stands(place):
    line, _ = place
    changed_product(line, spot_checks={"at_least": 6, "agree": 0.8})
    line.release(seed=1)
    shown = [text for each in seen(line).candidates for _, text in each.commands]
    assert len(shown) == 3 + 5
    for text in [*shown, seen(line).unlock]:
        words = text.removesuffix(" --help").split()[1:]
        words += ["because"] if words[-1] == "--reason" else []
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        if not text.endswith("--help"):
            command.make_context(command.name, words)


# The dossier as it was registered.


def test_a_page_is_shown_only_as_it_was_registered(place):
    line, release = place
    attestation = attestation_of(line.parts, line.parts.log.records(), release.digest)
    assert attestation is not None
    (report_folder(line.parts.home, release.digest) / "report.html").write_text("drawn by another hand")
    assert kept_page(line.parts, release.digest) == b"<p>report</p>"
    with pytest.raises(Refused, match=r"no report\.pdf was kept with release"):
        kept_page(line.parts, release.digest, "report.pdf")
    with pytest.raises(Refused, match="is not a registered release"):
        kept_page(line.parts, release.model)
    spoil(line, attestation.files["report.html"])
    with pytest.raises(
        Tampered, match=rf"report\.html of release {release.digest} is not what was registered: .*blobs"
    ):
        kept_page(line.parts, release.digest)
    line.parts.store.delete(attestation.files["report.html"])
    with pytest.raises(Missing, match=rf"report\.html of release {release.digest}"):
        kept_page(line.parts, release.digest)


# In the terminal.


@pytest.fixture
def assay(place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for module in (review_cli, releases_cli):
        monkeypatch.setattr(module, "Line", lambda: place[0].parts)
    return lambda *words, answers="": CliRunner().invoke(app, [str(word) for word in words], input=answers)


def test_pending_tells_what_each_lacks_and_how_to_sign(place, assay):
    line, release = place
    line.approve(release, "alice")
    laid_in(line, release, "bob")
    told = assay("pending").output
    assert f"{release.digest}  waits, 1 of 2 signatures (alice)" in told
    assert "lacks     1 of 2 signatures" in told
    assert "approve   bob: waits for the approvals sensor" in told
    assert f"$ assay approve {release.digest} --key ~/.ssh/id_ed25519" in told
    assert f"http://127.0.0.1:8104/dossier/{release.digest}" in told
    assert f'["{release.digest}"]' == "".join(assay("pending", "--json").output.split())
    approved(line, release)
    line.promote(release)
    assert assay("pending").output == "nothing waits for approval\n"


def test_pending_tells_of_a_lock_and_of_what_cannot_be_read(place, assay):
    line, release = place
    live(line, release)
    rollback(line.parts, line.product, "wrong refunds", actor="test")
    hurt = line.release(seed=1)
    spoil(line, hurt.digest)
    told = assay("pending").output
    assert "nothing is approved now: rolled back (wrong refunds)" in told
    assert f"$ assay root-cause {NAME} --help" in told
    assert f"{hurt.digest}  cannot be checked: " in told


def test_review_shows_the_dossier_and_signs_what_it_is_told(place, assay):
    line, release = place
    told = assay("review", release.digest[:19]).output
    assert told.startswith("report\n")
    assert "0 of 2 signatures" in told
    assert pending(line.parts) == [], "without a key nothing is signed"
    nothing = assay("review", release.digest, "--key", line.key("bob"), answers="\n")
    assert (nothing.exit_code, pending(line.parts)) == (0, [])
    assert isinstance(assay("review", release.digest, "--key", line.key("bob"), answers="yes\n").exception, BadInput)
    assert pending(line.parts) == []
    assert "approve signed" in assay("review", release.digest, "--key", line.key("bob"), answers="approve\n").output
    assay("review", release.digest, "--key", line.key("alice"), answers="reject\nno invoice\n")
    signed = {one.principal: (one.statement.decision, one.reason) for one in pending(line.parts)}
    assert signed == {"bob": ("approve", ""), "alice": ("reject", "no invoice")}


def test_review_signs_nothing_of_a_dossier_that_was_changed(place, assay):
    line, release = place
    attestation = attestation_of(line.parts, line.parts.log.records(), release.digest)
    assert attestation is not None
    spoil(line, attestation.files["report.md"])
    done = assay("review", release.digest, "--key", line.key("bob"), answers="approve\n")
    assert isinstance(done.exception, Tampered)
    assert pending(line.parts) == []


def test_review_says_where_a_release_stands_that_waits_no_more(place, assay):
    line, release = place
    other = line.release(seed=1)
    live(line, release)
    assert f"{other.digest}  superseded: compared with the base" in assay("review", other.digest).output
