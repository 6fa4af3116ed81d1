"""Provenance and signature of a release: whoever changes one of its files is told which."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from model_signing._cli import main

from data_contracts.digests import Digest, hex_of, tree_files
from data_contracts.errors import AssayError, BadInput, Refused
from data_contracts.manifests import ReleaseManifest
from data_contracts.provenance import Attestation
from pipelines.stages.release.attestation import attestation_of, unpacked
from pipelines.stages.release.candidate import register
from pipelines.stages.release.verify import verify
from resources.tree_signer import ModelSigner
from tests.support.line import REPORT, SmallLine
from tests.support.pieces import NAME

Place = tuple[SmallLine, ReleaseManifest, Attestation, Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallLine, ReleaseManifest]:
    line = SmallLine(tmp_path_factory.mktemp("whole"))
    release = line.release()
    line.approve(release)
    return line, release


@pytest.fixture
def copy(whole: tuple[SmallLine, ReleaseManifest], tmp_path: Path) -> Place:
    """The release, and a folder that holds it as somebody else got it."""
    line, release = whole
    attestation = attestation_of(line.parts, line.parts.log.records(), release.digest)
    assert attestation is not None
    with unpacked(line.parts.store, attestation) as files:
        shutil.copytree(files, tmp_path / "got")
    return line, release, attestation, tmp_path / "got"


def broken(line: SmallLine, release: Digest, files: Path | None = None) -> dict[str, str]:
    links = verify(line.parts, release, line.parts.signatures, files=files)
    return {link.name: link.detail for link in links if link.status == "broken" and link.name != "routes"}


def test_the_statement_names_every_file_and_all_that_the_model_was_made_from(copy: Place) -> None:
    line, release, _, folder = copy
    text = (folder / "provenance.intoto.json").read_text()
    Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement())).validate()
    statement = json.loads(text)
    json_format.ParseDict(statement["predicate"], provenance_pb2.Provenance())  # no field that SLSA does not know
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    own = {"provenance.intoto.json", "model.sig"}
    files = {name: hex_of(digest) for name, digest in tree_files(folder).items() if name not in own}
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == files
    assert {"adapter/adapter_model.safetensors", "manifests/release.json", "report.html", "bom.cdx.json"} <= set(files)
    build = statement["predicate"]["buildDefinition"]
    named = {each["name"]: each["digest"] for each in build["resolvedDependencies"]}
    assert named["base"] == {"sha256": hex_of(release.base)}
    assert named["data set splits"] == {"sha256": hex_of(line.splits.digest)}
    assert named["sft recipe"] == {"sha256": hex_of(line.model_of(release).recipe)}
    assert {"data set raw", "sft environment", "requirements/core.txt", "requirements/serve.txt"} <= named.keys()
    assert build["externalParameters"]["product"] == NAME
    assert statement["predicate"]["runDetails"]["metadata"]["invocationId"] == release.action_key
    assert statement["predicate"]["runDetails"]["builder"]["id"].startswith("urn:assay:builder:")
    texts = [item.row["text"] for item in line.parts.datasets.read(line.raw.root)]
    assert not [text for text in texts for path in folder.rglob("*.json") if text in path.read_text()]


def test_the_registry_holds_the_signed_files_and_a_copy_of_them_verifies(copy: Place) -> None:
    line, release, _, folder = copy
    assert line.registry.versions[NAME, release.digest] == {path.name for path in folder.iterdir()}
    links = verify(line.parts, release.digest, line.parts.signatures, files=folder)
    assert [link.name for link in links if link.status == "ok"].count("files") == 1
    assert [link.name for link in links if link.status != "ok"] == []


def test_the_library_of_others_verifies_it_with_the_public_key_alone(copy: Place, tmp_path: Path) -> None:
    _, _, attestation, folder = copy
    key = tmp_path / "release.pub"
    key.write_text(attestation.public_key)
    command = ["verify", "key", str(folder), "--signature", str(folder / "model.sig"), "--public_key", str(key)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    (folder / "report.md").write_text("better")
    assert CliRunner().invoke(main, command).exit_code != 0


KINDS = [
    *("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "manifests/release.json"),
    *("manifests/model.json", "manifests/verdict.json", "manifests/base.json", "manifests/checkpoint-sft.json"),
    *("README.md", "card-diff.md", "bom.cdx.json", "report.html", "report.md", "policy.json", "serving.json"),
    *("chat_template.jinja", "provenance.intoto.json"),
]


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_file_of_a_copy_is_named(copy: Place, name: str) -> None:
    line, _, attestation, folder = copy
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Refused, match=f"^{name} was changed"):
        line.parts.signer.check(folder, (folder / "model.sig").read_bytes(), attestation.public_key)


def test_a_missing_and_an_added_file_of_a_copy_are_named(copy: Place) -> None:
    line, release, _, folder = copy
    (folder / "adapter" / "setup.py").write_text("")
    assert broken(line, release.digest, folder) == {"files": "adapter/setup.py is not signed: it was added"}
    (folder / "adapter" / "setup.py").unlink()
    (folder / "report.md").unlink()
    assert broken(line, release.digest, folder) == {"files": "report.md is missing"}


def of_file(name: str):
    return lambda attestation: attestation.files[name]


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        *((name, of_file(name)) for name in ("report.html", "policy.json")),
        ("provenance.intoto.json", lambda attestation: attestation.provenance),
    ],
)
def test_a_changed_file_in_the_store_is_named_and_stops_the_promotion(
    whole: tuple[SmallLine, ReleaseManifest], tmp_path: Path, name: str, digest
) -> None:
    line, release = whole[0].copied(tmp_path / "copy"), whole[1]
    attestation = attestation_of(line.parts, line.parts.log.records(), release.digest)
    found = hex_of(digest(attestation))
    path = line.folder / "home" / "store" / "blobs" / found[:2] / found
    path.write_bytes(path.read_bytes() + b" ")
    assert name in broken(line, release.digest)["signature"]
    with pytest.raises(AssayError, match=r"was changed"):
        line.promote(release)


def test_a_signature_by_another_key_or_over_other_files_is_refused(copy: Place, tmp_path: Path) -> None:
    line, _, attestation, folder = copy
    stranger = ModelSigner(tmp_path / "stranger.pem", make=True)
    with unpacked(line.parts.store, attestation, signed=False) as files:
        forged = stranger.sign(files)
        with pytest.raises(Refused, match="does not hold"):
            line.parts.signer.check(files, forged, attestation.public_key)
        (files / "README.md").write_text("# another card")
        other = line.parts.signer.sign(files)
    with pytest.raises(Refused, match=r"README.md was changed"):
        line.parts.signer.check(folder, other, attestation.public_key)
    with pytest.raises(Refused, match="does not hold"):
        line.parts.signer.check(folder, b"{}", attestation.public_key)


def test_a_crash_after_signing_publishes_what_was_signed(
    whole: tuple[SmallLine, ReleaseManifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = whole[0].copied(tmp_path / "copy")
    model = line.candidate(1)
    verdict = line.verdict(model)
    with monkeypatch.context() as crash:
        crash.setattr(type(line.parts.log), "append", lambda *args, **named: (_ for _ in ()).throw(OSError("power")))
        with pytest.raises(OSError, match="power"):
            register(line.parts, line.product, model, verdict, REPORT)
    blobs = [path.read_bytes() for path in (line.folder / "home" / "store" / "blobs").rglob("*") if path.is_file()]
    signatures = [data for data in blobs if b"dsseEnvelope" in data]
    release, _ = register(
        line.parts, line.product, model, verdict, REPORT.model_copy(update={"html": "<p>drawn again</p>"})
    )
    attestation = attestation_of(line.parts, line.parts.log.records(), release.digest)
    assert attestation is not None
    assert len(signatures) == 2, "of the first release, and of this one"
    assert line.parts.store.get_bytes(attestation.signature) in signatures
    assert broken(line, release.digest) == {}


def test_a_release_of_an_earlier_edition_has_none_and_goes_on(
    whole: tuple[SmallLine, ReleaseManifest], tmp_path: Path
) -> None:
    """Its registration, as the edition before wrote it, names no attestation."""
    line = SmallLine(tmp_path)
    append = line.parts.log.append

    def without(event, product, body, actor):
        return append(event, product, {k: v for k, v in body.items() if k != "attestation"}, actor)

    line.parts.log.append = without  # type: ignore[method-assign]
    release = line.live()
    links = {link.name: link for link in verify(line.parts, release.digest, line.parts.signatures, files=tmp_path)}
    assert links["attestation"].detail == "of an earlier edition: none"
    assert "signature" not in links
    assert "no signature to check" in links["files"].detail
    assert [name for name, link in links.items() if link.status == "broken"] == ["files"]


def test_a_configured_key_must_be_there_and_fit(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="ASSAY_RELEASE_KEY"):
        ModelSigner(tmp_path / "none.pem", make=False).public_key()
    (tmp_path / "other.pem").write_text("not a key")
    with pytest.raises(BadInput, match=r"other.pem is no unencrypted private key"):
        ModelSigner(tmp_path / "other.pem", make=False).public_key()
    made = ModelSigner(tmp_path / "made.pem", make=True)
    assert made.public_key() == made.public_key()
    assert (tmp_path / "made.pem").stat().st_mode & 0o777 == 0o600
