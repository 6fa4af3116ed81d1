"""The drill: a tenant's releases are archived, lost, and brought back; and what an archive may not bring back."""

import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.digests import Digest, hex_of, tree_digest, tree_files
from data_contracts.errors import BadInput, Missing, Refused, Tampered
from data_contracts.manifests import BaseManifest, ReleaseManifest
from pipelines import tenant_cli
from pipelines.cli import app
from pipelines.stages.release.candidate import register
from pipelines.stages.release.verify import verify
from pipelines.stages.release.walk import Link
from resources.age_file import opened, sealed
from resources.ssh_signatures import create_key, public_key
from tests.support.line import REPORT, SmallLine


class Drill:
    """A line with two releases that were live one after the other, and a key to seal for."""

    def __init__(self, line: SmallLine, releases: list[ReleaseManifest], folder: Path) -> None:
        self.line = line
        self.first, self.second = releases
        self.tenant = self.first.tenant
        self.key, self.public, self.file = folder / "key", folder / "key.pub", folder / "tenant.age"
        create_key(self.key, "operator")
        self.public.write_text(public_key(self.key))

    def archive(self, tenant: str = "", out: Path | None = None) -> Result:
        words = ["archive", tenant or self.tenant, "--out", str(out or self.file), "--reader", str(self.public)]
        return CliRunner().invoke(app, ["tenant", *words])

    def restore(self, file: Path | None = None) -> Result:
        return CliRunner().invoke(app, ["tenant", "restore", str(file or self.file), "--key", str(self.key)])

    @property
    def store(self) -> Path:
        return self.line.folder / "home" / "store"

    def lose_all_but_the_base(self) -> None:
        store = self.line.parts.store
        base = store.get_json(store.get_manifest(self.first.base, BaseManifest).tree)
        for folder in ("blobs", "sealed"):
            shutil.rmtree(self.store / folder)
        store.put_json(base)

    def links(self, release: ReleaseManifest) -> list[Link]:
        """Of `assay verify`, but for the log, which has grown."""
        found = verify(self.line.parts, release.digest, self.line.parts.signatures)
        return [link for link in found if link.name != "audit log"]

    def whole(self, weights: Digest) -> bool:
        try:
            with self.line.parts.store.opened(weights) as folder:
                return tree_digest(tree_files(folder)) == weights
        except Missing:
            return False

    def revoke(self, release: ReleaseManifest) -> None:
        body = {"environment": release.environment, "release": release.digest, "reason": "erased", "live": False}
        self.line.parts.log.append("release.revoked", release.product, body, actor="erasure")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallLine, list[ReleaseManifest]]:
    line = SmallLine(tmp_path_factory.mktemp("line"))
    first = line.live(0)
    return line, [first, line.live(1, line.model_of(first))]


@pytest.fixture
def drill(made: tuple[SmallLine, list[ReleaseManifest]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drill:
    line, releases = made
    found = Drill(line.copied(tmp_path / "line"), releases, tmp_path)
    monkeypatch.setattr(tenant_cli, "Line", lambda: found.line.parts)
    return found


def test_what_was_lost_is_back_under_its_digests_and_verifies_as_before(drill: Drill) -> None:
    before = [drill.links(release) for release in (drill.first, drill.second)]
    assert {link.status for links in before for link in links} == {"ok"}
    told = drill.archive()
    assert told.exit_code == 0, told.output
    assert "2 releases, 2 trees of weights" in told.output

    drill.lose_all_but_the_base()
    assert {link.status for link in drill.links(drill.second)} != {"ok"}
    assert not drill.whole(drill.first.weights)
    told = drill.restore()
    assert told.exit_code == 0, told.output
    assert drill.first.digest in told.output
    assert drill.whole(drill.first.weights)
    assert drill.whole(drill.second.weights)
    assert [drill.links(release) for release in (drill.first, drill.second)] == before
    assert not list(drill.line.parts.home.glob("restore-*"))
    events = [record.event for record in drill.line.parts.log.records()][-2:]
    assert events == ["tenant.archived", "tenant.restored"]
    assert drill.restore().exit_code == 0  # what is whole stays


def test_damaged_files_are_replaced_and_others_are_not_touched(drill: Drill) -> None:
    drill.archive()
    damaged = drill.line.sealed(drill.first.weights) / "adapter_model.safetensors.age"
    damaged.write_bytes(b"other bytes")
    card = drill.store / "blobs" / hex_of(drill.first.card)[:2] / hex_of(drill.first.card)
    card.write_bytes(b"another card")
    untouched = drill.line.sealed(drill.second.weights) / "adapter_model.safetensors.age"
    stamp = untouched.stat().st_mtime_ns
    assert drill.restore().exit_code == 0
    assert {link.status for link in drill.links(drill.first)} == {"ok"}
    assert untouched.stat().st_mtime_ns == stamp


def test_a_release_that_was_revoked_since_stays_away(drill: Drill) -> None:
    drill.archive()
    drill.revoke(drill.first)
    drill.lose_all_but_the_base()
    told = drill.restore()
    assert told.exit_code == 0, told.output
    assert f"{drill.first.digest}  revoked since" in told.output
    assert not drill.whole(drill.first.weights)
    assert drill.whole(drill.second.weights)
    assert drill.line.parts.store.get_manifest(drill.first.digest, ReleaseManifest) == drill.first


def test_what_is_revoked_is_not_archived(drill: Drill) -> None:
    drill.revoke(drill.first)
    assert "1 releases, 1 trees of weights" in drill.archive().output
    with opened(drill.file, drill.key) as source, tarfile.open(fileobj=source, mode="r|") as tar:
        names = [member.name for member in tar]
    assert any(name.startswith(f"trees/{hex_of(drill.second.weights)}/") for name in names)
    assert not any(hex_of(drill.first.weights) in name for name in names)


def test_no_answer_of_an_evaluation_is_in_an_archive(drill: Drill) -> None:
    """Texts that a model answered may be erased later: they stay where erasure looks for them."""
    line = drill.line
    samples = line.parts.store.put_json({"item": "what it said"})
    model = line.candidate(2)
    verdict = line.verdict(model, line.model_of(drill.second), samples=samples)
    third = register(line.parts, line.product, model, verdict, REPORT)[0]
    drill.archive()
    with opened(drill.file, drill.key) as source, tarfile.open(fileobj=source, mode="r|") as tar:
        names = [member.name for member in tar]
    assert f"documents/{hex_of(third.digest)}" in names
    assert not any(hex_of(samples) in name for name in names)


def test_an_archive_that_the_log_does_not_name_is_refused(drill: Drill, tmp_path: Path) -> None:
    other = SmallLine(tmp_path / "elsewhere")
    other.live(0)
    drill.archive()
    drill.line = other
    before = len(other.parts.log.records())
    refused = drill.restore().exception
    assert isinstance(refused, Refused)
    assert "restore it where it was made" in str(refused)
    assert len(other.parts.log.records()) == before


@pytest.mark.parametrize("damage", ["cut", "changed", "tail"])
def test_a_damaged_archive_brings_no_weights_back(drill: Drill, tmp_path: Path, damage: str) -> None:
    drill.archive()
    whole = drill.file.read_bytes()
    middle = len(whole) // 2
    made = {
        "cut": whole[:middle],
        "changed": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "tail": whole[:-1],
    }[damage]
    bad = tmp_path / "bad.age"
    bad.write_bytes(made)
    drill.lose_all_but_the_base()
    refused = drill.restore(bad).exception
    assert isinstance(refused, Tampered)
    assert str(bad) in str(refused)
    assert not drill.whole(drill.first.weights)
    assert drill.line.parts.log.records()[-1].event == "tenant.archived"


def resealed(drill: Drill, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Path:
    """The archive with other files in it, sealed as well as the first: a reader wrote it."""
    with opened(drill.file, drill.key) as source, tarfile.open(fileobj=source, mode="r|") as tar:
        files = {member.name: (tar.extractfile(member) or BytesIO()).read() for member in tar}
    path = drill.file.with_name("resealed.age")
    with sealed(path, [drill.public]) as out, tarfile.open(fileobj=out, mode="w|") as tar:
        for name, data in change(files).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda files: dict(list(files.items())[:-1]), "and does not hold it"),
        (lambda files: files | {"../../keys/log": b"mine"}, "which it does not name"),
        (lambda files: {n: b"other" if n.startswith("trees/") else d for n, d in files.items()}, "other files than"),
        (lambda files: {n: b"other" if n.startswith("documents/") else d for n, d in files.items()}, "other bytes"),
        (lambda files: dict(list(files.items())[1:]), "does not begin with archive.json"),
        (lambda files: files | {"archive.json": b"{}"}, "archive.json cannot be read"),
        (lambda files: {}, "does not begin with archive.json"),
    ],
)
def test_an_archive_that_does_not_hold_what_it_names_is_refused(
    drill: Drill, change: Callable[[dict[str, bytes]], dict[str, bytes]], said: str
) -> None:
    drill.archive()
    file = resealed(drill, change)
    drill.lose_all_but_the_base()
    refused = drill.restore(file).exception
    assert isinstance(refused, Tampered)
    assert said in str(refused)
    assert not drill.whole(drill.first.weights)


def test_a_sealed_file_that_is_no_archive_is_told_as_such(drill: Drill) -> None:
    with sealed(drill.file, [drill.public]) as out:
        out.write(b"no archive" * 2000)
    refused = drill.restore().exception
    assert isinstance(refused, Tampered)
    assert "it is no archive of `assay tenant archive`" in str(refused)


def test_a_tenant_without_releases_and_a_wrong_key_are_told(drill: Drill, tmp_path: Path) -> None:
    refused = drill.archive("nobody", tmp_path / "none.age").exception
    assert isinstance(refused, Missing)
    assert "tenant nobody has no registered release" in str(refused)
    assert not (tmp_path / "none.age").exists()
    drill.archive()
    create_key(tmp_path / "other", "other")
    drill.key = tmp_path / "other"
    assert isinstance(drill.restore().exception, BadInput)
