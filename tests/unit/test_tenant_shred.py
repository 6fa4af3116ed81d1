"""The drill: a tenant's key is destroyed, nothing of it can be read or served any more, an archive brings it back."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyrage
import pytest
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.digests import Digest, sha256_bytes, sha256_file, tree_digest, tree_files
from data_contracts.errors import BadInput, Missing, Refused, Shredded, Unavailable
from data_contracts.lifecycle import follow
from data_contracts.manifests import ReleaseManifest
from pipelines import lifecycle_cli, releases_cli, tenant_cli
from pipelines.cli import app
from pipelines.stages.release import tenant_shred
from pipelines.stages.release.evidence import examine
from pipelines.stages.release.registered import awaiting_approval
from pipelines.stages.release.rollback import rollback
from pipelines.stages.release.tenant_archive import archive, restore
from pipelines.stages.release.tenant_shred import shred
from pipelines.stages.release.verify import verify
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.tenants import Callers, create_key
from pipelines.stages.train.steps import sft
from resources.age_file import opened, sealed
from resources.ssh_signatures import create_key as create_ssh_key
from resources.ssh_signatures import public_key
from tests.support.crash import PowerLoss, fails
from tests.support.line import FakeServer, SmallLine

KEY = b"AGE-SECRET-KEY-"


class ReadingServer(FakeServer):
    """Reads what it loads, as the real one does."""

    line: SmallLine

    def ensure_loaded(self, weights: Digest) -> str:
        if weights not in self.names:
            with self.line.parts.store.opened(weights) as folder:
                assert tree_digest(tree_files(folder)) == weights
        return super().ensure_loaded(weights)


class Drill:
    """A line with two releases, of which the second is live and another waits, an API key, and an archive."""

    def __init__(self, line: SmallLine, releases: list[ReleaseManifest], folder: Path) -> None:
        self.line, self.parts = line, line.parts
        self.first, self.second, self.waiting = releases
        self.tenant = self.first.tenant
        self.server = ReadingServer()
        self.server.line = line
        self.parts.__dict__["server"] = self.server
        self.key, self.file = folder / "key", folder / "tenant.age"
        create_ssh_key(self.key, "operator")
        self.key.with_suffix(".pub").write_text(public_key(self.key))
        self.api_key = create_key(self.parts.home, self.tenant)
        archive(self.parts, self.tenant, sealed(self.file, [self.key.with_suffix(".pub")]))
        reconcile(self.parts, [line.product])
        assert self.second.weights in self.server.loaded()

    def shred(self) -> tenant_shred.ShreddedTenant:
        return shred(self.parts, [self.line.product], self.tenant)

    def restore(self) -> None:
        restore(self.parts, opened(self.file, self.key))

    def statuses(self, release: ReleaseManifest) -> dict[str, str]:
        links = verify(self.parts, release.digest, self.parts.signatures)
        return {link.name: link.status for link in links}

    def events(self) -> list[str]:
        return [record.event for record in self.parts.log.records() if record.event.startswith("tenant.")]

    def is_shredded(self) -> None:
        for release in (self.first, self.second, self.waiting):
            with pytest.raises(Shredded):
                self.parts.store.opened(release.weights).__enter__()
            assert follow(self.parts.log.records()).standings[release.digest].shredded
        assert self.server.loaded() == []
        assert Callers(self.parts.home).tenant(self.api_key) is None
        assert self.events() == ["tenant.archived", "tenant.shredded"]
        assert not (self.parts.home / "training" / "left").exists()

    def leave_a_killed_training(self) -> None:
        left = self.parts.home / "training" / "left"
        (left / "checkpoints" / "step-2").mkdir(parents=True)
        (left / "checkpoints" / "step-2" / "adapter_model.safetensors").write_bytes(b"plain")
        (left / "job.json").write_text(f'{{"product": "{self.line.product.name}", "row_names": {{}}}}')


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallLine, list[ReleaseManifest]]:
    line = SmallLine(tmp_path_factory.mktemp("line"))
    first = line.live(0)
    second = line.live(1, line.model_of(first))
    return line, [first, second, line.release(2, line.model_of(second))]


@pytest.fixture
def drill(made: tuple[SmallLine, list[ReleaseManifest]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drill:
    line, releases = made
    found = Drill(line.copied(tmp_path / "line"), releases, tmp_path)
    for module in (tenant_cli, releases_cli, lifecycle_cli):
        monkeypatch.setattr(module, "Line", lambda: found.parts)
    return found


def run(*words: str) -> Result:
    return CliRunner().invoke(app, [*words])


def files(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def test_what_was_shredded_is_lost_and_an_archive_brings_it_back_as_it_was(drill: Drill) -> None:
    before = [drill.statuses(release) for release in (drill.first, drill.second)]
    assert {status for each in before for status in each.values()} == {"ok"}
    key = drill.parts.tenant_keys.public(drill.tenant)
    drill.leave_a_killed_training()

    told = run("tenant", "shred", drill.tenant, "--yes")
    assert told.exit_code == 0, told.output
    assert f"key {key}" in told.output
    assert "3 releases, 1 API keys, 1 unfinished training runs" in told.output
    drill.is_shredded()
    body = drill.parts.log.records()[-1].body
    releases = {release.digest for release in (drill.first, drill.second, drill.waiting)}
    assert (body["tenant"], body["key"], set(body["releases"])) == (drill.tenant, key, releases)

    drill.restore()
    assert [drill.statuses(release) for release in (drill.first, drill.second)] == before
    assert drill.parts.tenant_keys.public(drill.tenant) not in (None, key)
    reconcile(drill.parts, [drill.line.product])
    assert drill.second.weights in drill.server.loaded()
    drill.shred()
    drill.restore()
    assert drill.events()[1:] == ["tenant.shredded", "tenant.restored"] * 2


def test_no_byte_of_a_tenants_weights_lies_plain_and_no_key_that_is_left_opens_them(drill: Drill) -> None:
    secrets, digests = [], set()
    for release in (drill.first, drill.second, drill.waiting):
        with drill.parts.store.opened(release.weights) as folder:
            data = (folder / "adapter_model.safetensors").read_bytes()
        secrets += [data[-32:], data[len(data) // 2 - 32 :][:64]]  # all weights, and a piece of the middle
        digests.add(sha256_bytes(data))

    def plain(folder: Path) -> list[str]:
        return [
            str(path)
            for path, data in files(folder)
            if sha256_bytes(data) in digests or any(secret in data for secret in secrets)
        ]

    def openable() -> int:
        """Sealed files that a key of the home opens."""
        lines = [line.decode() for _, data in files(drill.parts.home) for line in data.splitlines()[:3] if KEY in line]
        count = 0
        for path, data in files(drill.parts.home):
            if path.suffix == ".age":
                with suppress(pyrage.DecryptError):
                    pyrage.decrypt(data, [pyrage.x25519.Identity.from_str(line) for line in lines])
                    count += 1
        return count

    assert plain(drill.parts.home) == []
    assert len(plain(drill.line.folder)) == 3, "the search finds what the line was made from"
    assert openable() == 6
    drill.parts.tenant_keys.recipient("another")
    drill.shred()
    assert (plain(drill.parts.home), openable()) == ([], 0)


def test_verify_says_what_was_shredded_and_goes_on_with_the_rest(drill: Drill) -> None:
    drill.shred()
    shown = drill.statuses(drill.second)
    gone = {"adapter", "checkpoint weights", "signature"}
    assert {name for name, status in shown.items() if status == "shredded"} == gone
    assert {status for name, status in shown.items() if name not in gone} == {"ok"}
    told = run("verify", drill.second.digest)
    assert told.exit_code == 0, told.output
    assert "shredded  adapter: " in told.output


def test_other_commands_know_a_shredded_release(drill: Drill) -> None:
    drill.shred()
    told = run("releases")
    assert told.exit_code == 0, told.output
    assert f"{drill.second.digest}  small/production  production, live, shredded" in told.output
    assert awaiting_approval(drill.parts) == []
    assert reconcile(drill.parts, [drill.line.product]) == []
    assert drill.server.loaded() == []
    with pytest.raises(Refused, match="shredded with its tenant"):
        examine(drill.parts, drill.line.product, drill.waiting.digest)
    record = rollback(drill.parts, drill.line.product, "a drill", actor="test")
    assert record.body["release"] is None, "what was shredded is passed over"
    with pytest.raises(Shredded):
        archive(drill.parts, drill.tenant, sealed(drill.file.with_name("late.age"), [drill.key.with_suffix(".pub")]))
    assert not drill.file.with_name("late.age").exists()


def test_a_shredded_tenant_trains_no_more_until_it_is_restored(drill: Drill) -> None:
    class Trainer:
        def launch(self, job_file: Path, run_dir: Path) -> None:
            raise Unavailable("it was started")

    line = drill.line
    drill.shred()
    with pytest.raises(Shredded, match="assay tenant restore"):
        sft(drill.parts, line.product, line.base, line.splits, Trainer())
    drill.restore()
    with pytest.raises(BadInput, match="no split"):  # of the made-up rows: the key is no obstacle any more
        sft(drill.parts, line.product, line.base, line.splits, Trainer())


def test_weights_of_an_earlier_edition_are_shredded_too(drill: Drill) -> None:
    store, weights = drill.parts.store, drill.first.weights
    with store.opened(weights) as folder:
        shutil.copytree(folder, drill.file.with_name("plain"))
    shutil.rmtree(drill.line.sealed(weights).parents[1])
    store.put_tree(drill.file.with_name("plain"))
    assert store.tree(weights)
    drill.shred()
    drill.is_shredded()
    digest = sha256_file(drill.file.with_name("plain") / "adapter_model.safetensors")
    assert digest not in {sha256_bytes(data) for _, data in files(drill.parts.home)}


STEPS = [
    ("log", "append", 1, "before"),
    ("log", "append", 1, "after"),
    ("tenant_keys", "_write", 1, "after"),
    (os, "fsync", 3, "after"),
    ("tenant_keys", "destroy", 1, "after"),
    (tenant_shred, "void_keys", 1, "after"),
    ("server", "unload", 2, "after"),
    (tenant_shred, "reconcile", 1, "before"),
    (tenant_shred, "forget_runs", 1, "before"),
    ("store", "sweep", 1, "before"),
]


@pytest.mark.parametrize(("owner", "name", "at", "when"), STEPS, ids=[f"{s[3]}-{s[1]}-{s[2]}" for s in STEPS])
def test_a_crash_at_any_step_is_finished_by_doing_it_again(drill: Drill, monkeypatch, owner, name, at, when) -> None:
    drill.leave_a_killed_training()
    with monkeypatch.context() as crash:
        fails(crash, getattr(drill.parts, owner) if isinstance(owner, str) else owner, name, at, when == "after")
        with pytest.raises(PowerLoss):
            drill.shred()
    drill.shred()
    drill.is_shredded()


def test_a_restore_that_was_cut_short_is_shredded_again(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    drill.shred()
    with monkeypatch.context() as crash:
        fails(crash, drill.parts.log, "append", 1, False)
        with pytest.raises(PowerLoss):
            drill.restore()
    drill.shred()
    drill.is_shredded()


def test_it_must_be_meant_and_the_tenant_must_be_there(drill: Drill) -> None:
    refused = run("tenant", "shred", drill.tenant).exception
    assert isinstance(refused, BadInput)
    assert "say so with --yes" in str(refused)
    unknown = run("tenant", "shred", "nobody", "--yes").exception
    assert isinstance(unknown, Missing)
    assert drill.events() == ["tenant.archived"]
    assert drill.parts.store.readable(drill.second.weights)
