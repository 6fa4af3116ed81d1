"""Harm done to one thing of a release that is live: `verify` names that link, and only what hangs on it."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.digests import Digest, hex_of
from data_contracts.ledger import Origin
from data_contracts.manifests import ReleaseManifest
from data_contracts.provenance import Attestation
from data_contracts.verdicts import GateVerdict
from pipelines.stages.release.verify import verify
from pipelines.stages.release.walk import Link
from tests.support.line import SmallLine


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[SmallLine, ReleaseManifest]:
    line = SmallLine(tmp_path_factory.mktemp("whole"))
    return line, line.live()


@pytest.fixture
def place(whole, tmp_path) -> tuple[SmallLine, ReleaseManifest]:
    line, release = whole
    return line.copied(tmp_path / "copy"), release


def walked(line: SmallLine, release: Digest, head: Digest | None = None) -> list[Link]:
    return verify(line.parts, release, line.parts.signatures, head)


def broken(line: SmallLine, release: Digest, head: Digest | None = None) -> dict[str, str]:
    """Names of broken links, without the digests in them, with their details."""
    links = walked(line, release, head)
    return {link.name.split(" sha256:")[0]: link.detail for link in links if link.status == "broken"}


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def blob(line: SmallLine, digest: Digest) -> Path:
    name = hex_of(digest)
    return line.folder / "home" / "store" / "blobs" / name[:2] / name


def tree(line: SmallLine, digest: Digest) -> Path:
    return line.folder / "home" / "store" / "trees" / hex_of(digest)


def test_a_whole_line_verifies_and_every_link_is_there(place):
    line, release = place
    links = walked(line, release.digest, line.parts.log.signed_head().head)
    assert [link.name.split(" sha256:")[0] for link in links] == [
        "audit log",
        "trust root",
        "release",
        "release head",
        "model",
        "base",
        "template",
        "adapter",
        "recipe",
        "checkpoints",
        "checkpoint weights",
        "data manifests",
        "data set raw",
        "data set splits",
        "verdict",
        "policy",
        "card",
        "attestation",
        "provenance",
        "signature",
        "approvals",
        "canary",
        "promotion",
        "lifecycle",
        "routes",
    ]
    assert {link.status for link in links} == {"ok"}


def model_field(name: str) -> Callable[[SmallLine, ReleaseManifest], Digest]:
    return lambda line, release: getattr(line.model_of(release), name)


def result_of(line: SmallLine, release: ReleaseManifest) -> Digest:
    return next(iter(line.parts.store.get_manifest(release.verdict, GateVerdict).results.values()))


def body_of(event: str, field: str) -> Callable[[SmallLine, ReleaseManifest], Digest]:
    return lambda line, release: next(
        str(record.body[field]) for record in line.parts.log.records() if record.event == event
    )


def attestation(line: SmallLine) -> Attestation:
    digest = body_of("release.registered", "attestation")(line, line.product)
    return line.parts.store.get_manifest(digest, Attestation)


def attested(name: str) -> Callable[[SmallLine, ReleaseManifest], Digest]:
    return lambda line, release: getattr(attestation(line), name)


@pytest.mark.parametrize(
    ("what", "links"),
    [
        (lambda line, release: release.digest, {"release"}),
        (lambda line, release: release.model, {"model", "verdict", "provenance", "signature"}),
        (lambda line, release: release.base, {"base", "signature"}),
        (lambda line, release: release.template, {"template", "signature"}),
        (lambda line, release: release.verdict, {"verdict", "signature"}),
        (lambda line, release: release.policy, {"policy", "verdict", "approvals", "signature"}),
        (lambda line, release: release.serving_config, {"policy", "signature"}),
        (lambda line, release: release.card, {"card", "signature"}),
        (lambda line, release: release.card_diff, {"card", "signature"}),
        (lambda line, release: release.bom, {"card", "signature"}),
        (model_field("recipe"), {"recipe", "checkpoints"}),
        (model_field("checkpoint"), {"checkpoints", "provenance", "signature"}),
        (lambda line, release: line.splits.digest, {"data manifests", "provenance", "signature"}),
        (lambda line, release: line.raw.digest, {"data manifests", "provenance", "signature"}),
        (result_of, {"verdict"}),
        (body_of("approval.accepted", "approval"), {"approvals"}),
        (body_of("promotion.recorded", "canary"), {"canary"}),
        (body_of("release.registered", "attestation"), {"attestation"}),
        (attested("provenance"), {"provenance", "signature"}),
        (attested("signature"), {"signature"}),
        (lambda line, release: attestation(line).files["report.html"], {"signature"}),
    ],
)
@pytest.mark.parametrize("harm", [flip, Path.unlink])
def test_a_changed_or_missing_document_breaks_its_link(place, what, links, harm):
    line, release = place
    harm(blob(line, what(line, release)))
    assert set(broken(line, release.digest)) == links


def test_one_byte_of_the_adapter(place):
    line, release = place
    flip(line.sealed(release.weights) / "adapter_model.safetensors.age")
    found = broken(line, release.digest)
    assert set(found) == {"adapter", "checkpoint weights", "signature"}
    assert "adapter_model.safetensors was changed" in found["adapter"]


def test_a_file_added_to_the_adapter(place):
    line, release = place
    (line.sealed(release.weights) / "extra.py").write_text("")
    assert "extra.py" in broken(line, release.digest)["adapter"]


def test_one_byte_of_the_base(place):
    line, release = place
    flip(tree(line, line.base.tree) / "model.safetensors")
    found = broken(line, release.digest)
    assert set(found) == {"base"}
    assert "model.safetensors was changed" in found["base"]


def rewrite(path: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), table.schema), path)


def edited(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [rows[0] | {"row": rows[0]["row"].replace("row", "hat")}, *rows[1:]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edited, "was changed"),
        (lambda rows: rows[1:], "content is not there"),
        (lambda rows: [*rows, rows[0]], "was added"),
    ],
)
@pytest.mark.parametrize("stage", ["raw", "splits"])
def test_a_row_of_a_data_set(place, stage, change, says):
    line, release = place
    manifest = getattr(line, stage)
    rewrite(line.folder / "home" / "rows" / hex_of(manifest.root) / "rows-00000.parquet", change)
    found = broken(line, release.digest)
    assert set(found) == {f"data set {stage}"}
    assert says in found[f"data set {stage}"]


def test_a_name_taken_from_a_data_set(place):
    line, release = place
    rewrite(line.folder / "home" / "rows" / hex_of(line.raw.root) / "names.parquet", lambda rows: rows[1:])
    assert set(broken(line, release.digest)) == {"data set raw"}


def ledger(line: SmallLine, statement: str) -> None:
    with sqlite3.connect(line.folder / "home" / "ledger.sqlite") as db:
        db.execute(statement)
    db.close()


def test_a_ledger_entry_taken_away(place):
    line, release = place
    row = line.parts.datasets.names(line.raw.root)[0][0]
    ledger(line, f"delete from ledger where name = x'{hex_of(row)}'")
    found = broken(line, release.digest)
    assert set(found) == {"data set raw"}
    assert "no ledger entry" in found["data set raw"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("CC0-1.0", "MIT"), ('"consent":"synthetic"', '"consent":"consent"'), ("own-model", "shared-model")],
)
def test_a_ledger_entry_whose_terms_were_changed(place, old, new):
    line, release = place
    ledger(line, f"update origins set entry = replace(entry, '{old}', '{new}') where derived = 1")
    found = broken(line, release.digest)
    assert set(found) == {"data set splits"}
    assert "ledger" in found["data set splits"]


@pytest.mark.parametrize(
    "change", ["subject = 'somebody else'", "origin = (select origin from origins where entry like '%elsewhere%')"]
)
def test_a_row_put_down_to_another_person_or_source(place, change):
    line, release = place
    row = line.parts.datasets.names(line.splits.root)[0][0]
    entry = line.parts.ledger.entry(row)
    elsewhere = Origin.model_validate(entry.origin.payload() | {"source": "elsewhere"})
    other = entry.model_copy(update={"row": f"sha256:{'0' * 64}", "origin": elsewhere})
    line.parts.ledger.record([other])
    ledger(line, f"update ledger set {change} where name = x'{hex_of(row)}'")
    assert set(broken(line, release.digest)) == {"data set splits"}


def test_erased_rows_are_erased_not_broken(place):
    line, release = place
    subject = line.parts.datasets.names(line.raw.root)[0][1]
    line.parts.keyring.delete(subject)
    for manifest in (line.raw, line.splits):
        path = line.folder / "home" / "rows" / hex_of(manifest.root) / "rows-00000.parquet"
        rewrite(path, lambda rows: [row for row in rows if row["subject"] != subject])
    links = walked(line, release.digest)
    assert {link.name.split(" sha256:")[0] for link in links if link.status == "erased"} == {
        "data set raw",
        "data set splits",
    }
    assert not [link for link in links if link.status == "broken"]


def log_file(line: SmallLine) -> Path:
    return line.folder / "home" / "chain" / "log.jsonl"


@pytest.mark.parametrize("at", [0, 2, -1])
def test_a_changed_line_of_the_audit_log(place, at):
    line, release = place
    lines = log_file(line).read_text().splitlines()
    record = json.loads(lines[at])
    lines[at] = json.dumps(record | {"actor": "mallory"}, separators=(",", ":"), sort_keys=True)
    log_file(line).write_text("\n".join(lines) + "\n")
    assert set(broken(line, release.digest)) == {"audit log"}


def test_the_whole_log_put_back_to_an_older_state(place, whole, tmp_path):
    """Log and kept head together, as only an attacker with all of ``home`` can: the head noted outside shows it."""
    line, release = place
    older = line.copied(tmp_path / "older")
    line.parts.log.append("drift.recorded", "small", {}, actor="test")
    noted = line.parts.log.signed_head().head
    for name in ("log.jsonl", "head.json"):
        (line.folder / "home" / "chain" / name).write_bytes((older.folder / "home" / "chain" / name).read_bytes())
    assert broken(line, release.digest) == {}
    assert "cut or rewritten" in broken(line, release.digest, noted)["audit log"]


def test_a_log_rewritten_with_the_stolen_log_key_shows_by_the_head_in_the_release(place, tmp_path):
    line, release = place
    chain = line.folder / "home" / "chain"
    records = line.parts.log.records()
    for name in ("log.jsonl", "head.json"):
        (chain / name).unlink()
    for record in records:
        line.parts.log.append(record.event, record.product, record.body, actor="mallory")
    found = broken(line, release.digest)
    assert "not in it" in found["release head"]


def test_the_route_table(place):
    line, release = place
    path = line.folder / "home" / "routes.json"
    path.write_text(path.read_text().replace(release.digest, "sha256:" + "0" * 64))
    assert set(broken(line, release.digest)) == {"routes"}
    path.unlink()
    assert set(broken(line, release.digest)) == {"routes"}


def test_a_trust_root_without_the_reviewer_or_without_the_log_key(place):
    line, release = place
    log_key, *reviewers = line.trust_root.read_text().splitlines()
    line.trust_root.write_text(log_key + "\n")
    found = broken(line, release.digest)
    assert set(found) == {"approvals"}
    assert "stranger" in found["approvals"]
    line.trust_root.write_text("\n".join(reviewers) + "\n")
    assert set(broken(line, release.digest)) == {"trust root", "release head"}


def test_a_release_that_was_never_registered(place):
    line, release = place
    copy = release.model_copy(update={"tenant": "mallory"})
    line.parts.store.put_manifest(copy)
    assert "no record" in broken(line, copy.digest)["release"]
