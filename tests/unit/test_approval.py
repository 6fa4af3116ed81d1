"""Approvals with real SSH keys: what is accepted, and each thing that is refused, with its reason."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from data_contracts.chain import LOG_NAMESPACE
from data_contracts.errors import BadInput, Refused, Tampered
from data_contracts.manifests import ReleaseManifest
from data_contracts.verdicts import Approval
from pipelines.recipes.approvals import ApprovalRule
from pipelines.stages.release import approval
from pipelines.stages.release.approval import accept, pending, submit
from pipelines.stages.release.ballot import approvals
from pipelines.stages.release.rollback import rollback
from resources.ssh_signatures import create_key, public_key, sign, signer_line
from tests.support.line import SmallLine

Place = tuple[SmallLine, ReleaseManifest]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Place:
    line = SmallLine(tmp_path_factory.mktemp("whole"))
    return line, line.release()


@pytest.fixture
def place(whole, tmp_path) -> Place:
    line, release = whole
    return line.copied(tmp_path / "copy"), release


def refused(line: SmallLine, one: Approval, match: str) -> None:
    before = len(line.parts.log.records())
    with pytest.raises(Refused, match=match):
        accept(line.parts, line.product, one)
    assert len(line.parts.log.records()) == before


def test_a_statement_holds_what_the_invariant_lists_and_is_derived(place):
    line, release = place
    statement = line.signed(release).statement
    assert set(statement.payload()) == {
        *("decision", "product", "environment", "weights", "base", "template", "verdict", "card_diff", "policy"),
        *("serving_config", "displaced_champion", "nonce", "expires"),
    }
    assert (statement.weights, statement.base, statement.verdict) == (release.weights, release.base, release.verdict)
    assert statement.nonce != line.signed(release).statement.nonce


def test_an_approval_goes_from_the_inbox_into_the_log(place):
    line, release = place
    one = line.signed(release)
    path = submit(line.parts, release.digest, one.statement, one.signature)
    path = path.rename(path.with_name("by-mail.json"))
    assert pending(line.parts) == [one]
    record = accept(line.parts, line.product, pending(line.parts)[0])
    assert (record.event, record.actor, record.body["nonce"]) == ("approval.accepted", "alice", one.statement.nonce)
    assert pending(line.parts) == []
    assert not path.exists()


def test_accepting_again_after_a_crash_chains_nothing_twice(place):
    line, release = place
    one = line.signed(release)
    first = accept(line.parts, line.product, one)
    submit(line.parts, release.digest, one.statement, one.signature)
    assert accept(line.parts, line.product, one) == first
    assert pending(line.parts) == []


def test_a_strangers_key(place):
    line, release = place
    create_key(line.key("mallory"), "mallory")
    one = line.signed(release, "mallory")
    refused(line, one, "stranger's key")
    with pytest.raises(Refused, match="stranger's key"):
        submit(line.parts, release.digest, one.statement, one.signature)
    refused(line, one.model_copy(update={"principal": "alice"}), "stranger's key")


def test_the_log_key_cannot_approve(place):
    line, release = place
    statement = line.signed(release).statement
    key = line.parts.log.log_key
    for namespace, says in ((LOG_NAMESPACE, "wrong namespace"), (approval.APPROVAL_NAMESPACE, "stranger's key")):
        signature = sign(key, namespace, approval.message(statement))
        one = Approval(release=release.digest, statement=statement, principal="assay-log", signature=signature)
        refused(line, one, says)


def test_a_signature_of_another_namespace(place):
    line, release = place
    refused(line, line.signed(release, namespace="git"), "wrong namespace: signed for 'git'")


def test_under_another_reviewers_name(place):
    line, release = place
    one = line.signed(release).model_copy(update={"principal": "bob"})
    refused(line, one, "signs as alice .* not as bob")


def test_a_statement_changed_after_signing(place):
    line, release = place
    one = line.signed(release)
    later = one.statement.model_copy(update={"expires": one.statement.expires + timedelta(hours=1)})
    refused(line, one.model_copy(update={"statement": later}), "changed after signing")
    refused(line, one.model_copy(update={"signature": "nonsense"}), "not an SSH signature")


OTHER = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("product", "other"),
        ("environment", "staging"),
        ("weights", OTHER),
        ("base", OTHER),
        ("template", OTHER),
        ("verdict", OTHER),
        ("card_diff", OTHER),
        ("policy", OTHER),
        ("serving_config", OTHER),
        ("displaced_champion", OTHER),
    ],
)
def test_each_field_signed_for_something_else(place, field, value):
    line, release = place
    refused(line, line.signed(release, **{field: value}), f"something else than release .* {field} {value}")


def test_an_approval_of_another_release(place):
    line, release = place
    other = line.release(seed=1)
    one = line.signed(other).model_copy(update={"release": release.digest})
    refused(line, one, "something else than release")
    unknown = release.model_copy(update={"tenant": "x"})
    refused(line, line.signed(release).model_copy(update={"release": unknown.digest}), "not a registered release")


def test_expired_and_good_for_too_long(place):
    line, release = place
    past, far = datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) + timedelta(hours=25)
    refused(line, line.signed(release, expires=past), "expired")
    refused(line, line.signed(release, expires=far), "allows 24 hours")
    for expires in (past, far):
        with pytest.raises(Refused):
            approval.statement_for(line.parts, line.product, release.digest, "approve", expires)


def test_a_replayed_nonce(place):
    line, release = place
    first = line.signed(release)
    accept(line.parts, line.product, first)
    again = line.signed(release, "bob", nonce=first.statement.nonce)
    refused(line, again, f"replayed: nonce {first.statement.nonce} was used in audit record")


def test_an_approval_serves_one_promotion_only(place):
    """Back at the base after a rollback, everything signed is true again: the nonce is what stops it."""
    line, release = place
    one = line.signed(release)
    accept(line.parts, line.product, one)
    line.promote(release)
    rollback(line.parts, line.product, "test", actor="test")
    refused(line, one, "replayed")
    with pytest.raises(Refused, match="0 of 1 signatures"):
        line.promote(release)
    line.explain_rollback()
    line.approve(release, "bob")
    line.promote(release)


def test_a_champion_that_moved_voids_it(place):
    line, release = place
    other = line.release(seed=1)
    one, before = line.signed(other), line.signed(release)
    accept(line.parts, line.product, before)
    accept(line.parts, line.product, one)
    line.promote(release)
    refused(line, one, "champion moved")
    with pytest.raises(Refused, match="champion moved"):
        line.promote(other)
    with pytest.raises(Refused, match="champion moved"):
        line.signed(other)


def test_the_product_file_changed_after_registration(place):
    line, release = place
    one = line.signed(release)
    product = line.product.model_copy(
        update={"approval": line.product.approval.model_copy(update={"expires_hours": 48})}
    )
    with pytest.raises(Refused, match="the policy of product small is now"):
        accept(line.parts, product, one)


def test_evidence_that_was_tampered_with(place):
    line, release = place
    one = line.signed(release)
    name = release.verdict.removeprefix("sha256:")
    path = line.folder / "home" / "store" / "blobs" / name[:2] / name
    path.write_bytes(path.read_bytes().replace(b"promote", b"promise"))
    with pytest.raises(Tampered, match="was changed"):
        accept(line.parts, line.product, one)


def test_a_rejection_blocks_until_its_reviewer_approves_later(place):
    line, release = place
    early = line.signed(release, "alice", hours=1)
    with pytest.raises(Refused, match="needs a reason"):
        accept(line.parts, line.product, line.signed(release, "alice", "reject", hours=2))
    accept(line.parts, line.product, line.signed(release, "alice", "reject", "wrong refunds", hours=2))
    refused(line, line.signed(release, "bob", hours=3), "alice rejected this release: wrong refunds")
    refused(line, early, "alice decided later than this")
    accept(line.parts, line.product, line.signed(release, "alice", hours=4))
    line.promote(release)


def test_a_rejection_after_an_approval_stops_the_promotion(place):
    line, release = place
    line.approve(release, "alice")
    accept(line.parts, line.product, line.signed(release, "bob", "reject", "not yet"))
    with pytest.raises(Refused, match="bob rejected this release: not yet"):
        line.promote(release)


def test_refused_and_unreadable_submissions_are_set_aside_with_the_reason(place):
    line, release = place
    one = line.signed(release)
    path = submit(line.parts, release.digest, one.statement, one.signature)
    line.trust_root.write_text(line.trust_root.read_text().splitlines()[0] + "\n")
    with pytest.raises(Refused):
        accept(line.parts, line.product, one)
    aside = line.folder / "home" / "approvals" / "refused"
    assert "stranger" in (aside / f"{path.stem}.reason.txt").read_text()
    path.write_text("{}")
    assert pending(line.parts) == []
    assert json.loads((aside / path.name).read_text()) == {}


def test_a_missing_trust_root_is_no_reason_to_set_an_approval_aside(place):
    line, release = place
    one = line.signed(release)
    submit(line.parts, release.digest, one.statement, one.signature)
    line.trust_root.unlink()
    with pytest.raises(BadInput, match="no allowed-signers file"):
        accept(line.parts, line.product, one)
    assert pending(line.parts) == [one]


def test_two_signatures_are_two_people_with_two_keys(tmp_path):
    line = SmallLine(tmp_path / "two", signatures=2)
    release = line.release()
    with line.trust_root.open("a") as handle:
        handle.write(signer_line("carol", approval.APPROVAL_NAMESPACE, public_key(line.key("alice"))) + "\n")
    line.approve(release, "alice")
    line.approve(release, "alice")
    accept(line.parts, line.product, line.signed(release, "alice").model_copy(update={"principal": "carol"}))
    assert len(approvals(line.parts.log.records(), release)) == 1
    with pytest.raises(Refused, match="1 of 2 signatures"):
        line.promote(release)
    line.approve(release, "bob")
    line.promote(release)


def ruled(line: SmallLine, **rule: object) -> ReleaseManifest:
    """A release that is registered under this rule of approval."""
    line.product = line.product.model_copy(update={"approval": ApprovalRule.model_validate(rule)})
    return line.release()


def test_each_role_is_signed_for_by_somebody_of_its_own(tmp_path):
    line = SmallLine(tmp_path / "roles")
    release = ruled(line, roles={"quality": ["alice", "bob"], "compliance": ["bob"]})
    line.approve(release, "bob")
    with pytest.raises(Refused, match=r"1 of 2 signatures, nobody signed as compliance \(bob\)"):
        line.promote(release)
    line.approve(release, "alice")
    line.promote(release)


def test_a_reviewer_without_a_role_does_not_approve_but_may_reject(tmp_path):
    line = SmallLine(tmp_path / "role")
    release = ruled(line, roles={"quality": ["alice"]})
    refused(line, line.signed(release, "bob"), r"wrong role: bob is in none of quality")
    line.approve(release, "alice")
    accept(line.parts, line.product, line.signed(release, "bob", "reject", "not yet"))
    with pytest.raises(Refused, match="bob rejected this release: not yet"):
        line.promote(release)


def test_an_authors_own_approval_is_refused(tmp_path):
    line = SmallLine(tmp_path / "author")
    release = ruled(line, authors=["alice"])
    refused(line, line.signed(release, "alice"), "alice is one of the product's authors")
    line.approve(release, "bob")
    line.promote(release)


def test_an_approval_by_an_author_that_was_chained_somehow_does_not_count(tmp_path, monkeypatch):
    line = SmallLine(tmp_path / "chained")
    release = ruled(line, authors=["alice"])
    with monkeypatch.context() as patch:
        patch.setattr(ApprovalRule, "check_may_approve", lambda self, principal: None)
        line.approve(release, "alice")
    with pytest.raises(Refused, match=r"0 of 1 signatures .*record \d+: alice is one of the product's authors"):
        line.promote(release)


@pytest.mark.parametrize(
    ("rule", "lacks"),
    [
        ({"roles": {"quality": ["alice"], "compliance": ["alice"]}}, r"1 of 2 signatures; nobody signed as compliance"),
        ({"roles": {"quality": ["alice"]}, "authors": ["alice"]}, "nobody signed as quality"),
        ({"roles": {"quality": []}}, "nobody signed as quality"),
        ({"signatures": 2, "roles": {"quality": ["alice"]}}, "1 of 2 signatures"),
    ],
)
def test_a_rule_that_nobody_could_meet_is_refused_where_it_is_written(rule, lacks):
    with pytest.raises(ValueError, match=f"nobody could ever approve: .*{lacks}"):
        ApprovalRule.model_validate(rule)


def test_people_take_the_roles_that_leave_fewest_open():
    rule = ApprovalRule(roles={"a": ("x", "y"), "b": ("x",), "c": ("z", "y")})
    assert rule.missing(["x", "y", "z"]) == []
    assert rule.missing(["x", "y"]) == ["2 of 3 signatures", "nobody signed as c (z, y)"]


def test_a_key_with_two_names_must_say_which(place):
    line, release = place
    with line.trust_root.open("a") as handle:
        handle.write(signer_line("carol", approval.APPROVAL_NAMESPACE, public_key(line.key("alice"))) + "\n")
    one = line.signed(release)
    with pytest.raises(BadInput, match=r"--as alice \| carol"):
        submit(line.parts, release.digest, one.statement, one.signature)
    submit(line.parts, release.digest, one.statement, one.signature, principal="carol")
    assert pending(line.parts)[0].principal == "carol"


def test_a_reviewer_taken_from_the_trust_root_no_longer_counts(place):
    line, release = place
    line.approve(release, "alice")
    kept = [text for text in line.trust_root.read_text().splitlines() if not text.startswith("alice")]
    line.trust_root.write_text("\n".join(kept) + "\n")
    with pytest.raises(Refused, match=r"0 of 1 signatures .* stranger's key"):
        line.promote(release)
