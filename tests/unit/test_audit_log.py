"""The log on disk, with real keys: append, crash, rotation, and each way to falsify it."""

import json
from pathlib import Path

import pytest

from data_contracts.chain import LOG_NAMESPACE, ChainBroken
from data_contracts.digests import canonical_json
from data_contracts.errors import BadInput, Refused
from data_contracts.manifests import SignedHead
from pipelines.stages.release.audit import check_head, check_log, log_keys
from resources.audit_log import FileAuditLog
from resources.ssh_signatures import SshSignatures, create_key, public_key, sign, signer_line


class Place:
    def __init__(self, folder: Path) -> None:
        self.log = FileAuditLog(folder / "chain", folder / "keys" / "log")
        trust_root = folder / "trust" / "allowed_signers"
        trust_root.parent.mkdir()
        trust_root.write_text(self.log.signer_line() + "\n")
        self.signatures = SshSignatures(trust_root)

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.log.append("drift.recorded", "p", {"n": number}, actor="test")

    def lines(self) -> list[bytes]:
        return self.log.path.read_bytes().splitlines(keepends=True)

    def numbers(self) -> list[object]:
        return [record.body["n"] for record in check_log(self.log, self.signatures)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_records_come_back_in_order_and_the_head_is_signed(place):
    place.add(0, 1, 2)
    assert place.numbers() == [0, 1, 2]
    assert place.log.signed_head().head == place.log.records()[-1].digest


def test_the_log_key_is_private(place):
    assert place.log.log_key.stat().st_mode & 0o777 == 0o600


def test_an_empty_log_is_not_an_intact_log(place):
    with pytest.raises(ChainBroken, match="empty"):
        check_log(place.log, place.signatures)


@pytest.mark.parametrize("torn", [0, 1, 40])
def test_a_crash_while_the_line_is_written_loses_nothing(place, torn):
    place.add(0, 1, 2)
    *before, last = place.lines()
    place.log.path.write_bytes(b"".join(before) + last[:torn])
    assert place.numbers() == [0, 1, 2]
    place.add(3)
    assert place.numbers() == [0, 1, 2, 3]
    assert len(place.lines()) == 4


def test_an_edited_line_shows_wherever_it_is(place):
    place.add(0, 1, 2)
    intact = place.lines()
    for at in range(3):
        lines = list(intact)
        record = json.loads(lines[at])
        lines[at] = canonical_json(record | {"actor": "mallory"}) + b"\n"
        place.log.path.write_bytes(b"".join(lines))
        with pytest.raises(ChainBroken):
            check_log(place.log, place.signatures)
    place.log.path.write_bytes(b"".join([intact[0].replace(b":", b": ", 1), *intact[1:]]))
    with pytest.raises(ChainBroken, match="record 0 is not written as it was"):
        place.log.records()


def test_lines_cut_off_show_and_stop_the_log(place):
    place.add(0, 1, 2)
    place.log.path.write_bytes(b"".join(place.lines()[:1]))
    with pytest.raises(ChainBroken, match="cut after record 0"):
        place.log.records()
    with pytest.raises(ChainBroken, match="not the signed head 2"):
        place.add(3)


def test_a_line_appended_by_another_hand_shows_and_stops_the_log(place):
    place.add(0)
    tip = place.log.records()[-1]
    forged = tip.model_copy(update={"sequence": 1, "previous": tip.digest})
    with place.log.path.open("ab") as handle:
        handle.write(canonical_json(forged.payload()) + b"\n")
    with pytest.raises(ChainBroken, match="not the one that was signed"):
        place.log.records()
    with pytest.raises(ChainBroken):
        place.add(1)


def test_a_rewritten_log_with_a_head_by_a_strangers_key_shows_and_stops_the_log(place, tmp_path):
    place.add(0, 1)
    stranger = FileAuditLog(tmp_path / "forged", tmp_path / "stranger" / "key")
    stranger.append("drift.recorded", "p", {"n": 7}, actor="test")
    place.log.path.write_bytes(stranger.path.read_bytes())
    place.log.head_path.write_bytes(stranger.head_path.read_bytes())
    assert len(place.log.records()) == 1
    with pytest.raises(ChainBroken, match="not signed by the log key"):
        check_log(place.log, place.signatures)
    with pytest.raises(ChainBroken, match="not signed by the log key"):
        place.add(2)


def test_without_its_signed_head_or_its_key_the_log_stops(place):
    place.add(0)
    head = place.log.head_path.read_bytes()
    place.log.head_path.unlink()
    with pytest.raises(ChainBroken):
        place.add(1)
    place.log.head_path.write_bytes(head)
    place.log.log_key.unlink()
    with pytest.raises(Refused, match="no log key"):
        place.add(1)


def test_after_a_rotation_each_key_counts_for_its_own_time_only(place, tmp_path):
    place.add(0)
    old_head = place.log.signed_head()
    old_key = tmp_path / "old"
    old_key.write_bytes(place.log.log_key.read_bytes())
    old_key.chmod(0o600)
    line = place.log.signer_line()
    place.log.rotate(actor="operator")
    place.add(1)
    records = check_log(place.log, place.signatures)
    keys = log_keys(records, place.signatures)
    check_head(records, keys, old_head, place.signatures)
    assert place.log.signer_line() == line

    late = SignedHead(
        sequence=2, head=records[2].digest, signature=sign(old_key, LOG_NAMESPACE, records[2].digest.encode())
    )
    early = SignedHead(
        sequence=0,
        head=records[0].digest,
        signature=sign(place.log.log_key, LOG_NAMESPACE, records[0].digest.encode()),
    )
    for head in (late, early):
        with pytest.raises(ChainBroken, match="not signed by the log key of that time"):
            check_head(records, keys, head, place.signatures)
    with pytest.raises(ChainBroken, match="not in it"):
        check_head(records[:1], [], place.log.signed_head(), place.signatures)


def test_rotating_twice_traces_back_to_the_trust_root(place):
    place.log.rotate(actor="operator")
    place.log.rotate(actor="operator")
    place.add(1)
    assert len(log_keys(check_log(place.log, place.signatures), place.signatures)) == 2


def test_a_rotation_that_the_old_key_did_not_sign_shows(place, tmp_path):
    place.add(0)
    create_key(tmp_path / "thief", "thief")
    public = public_key(tmp_path / "thief")
    signature = sign(tmp_path / "thief", LOG_NAMESPACE, b"anything")
    place.log.append("log-key.rotated", "*", {"public_key": public, "replaces": "x", "signature": signature}, "thief")
    with pytest.raises(ChainBroken, match="key rotation 1 is not signed by the key before it"):
        check_log(place.log, place.signatures)


@pytest.mark.parametrize("chained", [True, False])
def test_a_crash_in_the_middle_of_a_rotation_settles(place, monkeypatch, chained):
    place.add(0)
    with monkeypatch.context() as crash:
        real = Path.replace

        def replace(self: Path, target: Path) -> Path:
            if self == place.log.next_key or (not chained and target == place.log.head_path):
                raise OSError("power loss")
            return real(self, target)

        crash.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="power loss"):
            place.log.rotate(actor="operator")
    place.add(1)
    events = [record.event for record in check_log(place.log, place.signatures)]
    assert events == ["drift.recorded", *(["log-key.rotated"] if chained else []), "drift.recorded"]
    assert not place.log.next_key.exists()


def test_a_trust_root_without_the_log_key_or_with_it_for_another_use_refuses(place):
    place.add(0)
    root = place.signatures.allowed_signers
    root.write_text(signer_line("assay-log", "file", public_key(place.log.log_key)) + "\n")
    with pytest.raises(ChainBroken, match="not signed by the log key"):
        check_log(place.log, place.signatures)
    root.unlink()
    with pytest.raises(BadInput, match="no allowed-signers file"):
        check_log(place.log, place.signatures)


def test_the_end_is_found_in_a_long_log_with_long_lines(place):
    for number in range(3):
        place.log.append("drift.recorded", "p", {"n": number, "note": "x" * 20_000}, actor="test")
    assert place.numbers() == [0, 1, 2]


def test_a_key_of_two_lines_signs_as_each_principal_in_its_own_namespace(tmp_path):
    create_key(tmp_path / "key", "both")
    public = public_key(tmp_path / "key")
    root = tmp_path / "allowed"
    root.write_text(signer_line("log", "a", public) + "\n" + signer_line("alice,al", "b", public) + "\n")
    signatures = SshSignatures(root)
    assert signatures.principals("b", b"text", sign(tmp_path / "key", "b", b"text")) == ["al", "alice"]
    assert signatures.principals("a", b"text", sign(tmp_path / "key", "a", b"text")) == ["log"]
    assert signatures.principals("a", b"other", sign(tmp_path / "key", "a", b"text")) == []
    assert signatures.signer(sign(tmp_path / "key", "b", b"text")) == (public, "b")
    assert signatures.principals("a", b"text", "nonsense") == []
    with pytest.raises(Refused, match="not an SSH signature"):
        signatures.signer("nonsense")
