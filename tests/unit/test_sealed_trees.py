"""Weights of tenants in the store: sealed at rest, opened where no disk is, unreadable without their key."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyrage
import pytest

from data_contracts.digests import hex_of, tree_digest, tree_files
from data_contracts.errors import Missing, Shredded, Tampered
from pipelines.recipes.product import ROOT
from resources.artifact_store import FsspecArtifactStore
from resources.scratch import scratch
from resources.tenant_keys import TenantKeys

SECRET = b"weights that nobody else has" * 9000
"""More than one chunk of an age file."""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(SECRET)
    (folder / "adapter_config.json").write_text('{"r": 2}')
    return folder


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FsspecArtifactStore]:
    """On a disk, and on a store that is reached through fsspec only."""
    url = str(tmp_path / "store") if request.param == "folder" else "memory://store"
    yield FsspecArtifactStore(url, tmp_path / "cache", TenantKeys(tmp_path / "vault" / "tenants"))
    fsspec.filesystem("memory").store.clear()


def held(store: FsspecArtifactStore) -> dict[str, bytes]:
    return {path.removeprefix(store.root): store.fs.cat_file(path) for path in store.fs.find(store.root)}


def sealed(store: FsspecArtifactStore, tenant: str, name: str = "adapter_model.safetensors") -> str:
    (path,) = [path for path in store.fs.find(store.root) if f"/{tenant}/" in path and path.endswith(f"{name}.age")]
    return str(path)


def test_a_tree_of_a_tenant_is_sealed_under_the_digest_of_its_plain_bytes(
    store: FsspecArtifactStore, weights: Path
) -> None:
    digest = store.put_tree(weights, "acme")
    assert digest == tree_digest(tree_files(weights))
    assert not [name for name, data in held(store).items() if SECRET[:64] in data]
    with store.opened(digest) as folder:
        assert (folder.name, tree_files(folder)) == (hex_of(digest), tree_files(weights))
        assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert not folder.parent.exists()
    with pytest.raises(Missing, match="only sealed for a tenant"):
        store.tree(digest)
    before = held(store)
    assert store.put_tree(weights, "acme") == digest
    assert held(store) == before


def test_two_tenants_with_equal_bytes_share_no_copy(store: FsspecArtifactStore, weights: Path) -> None:
    digest = store.put_tree(weights, "acme")
    store.put_tree(weights, "globex")
    assert store.fs.cat_file(sealed(store, "acme")) != store.fs.cat_file(sealed(store, "globex"))
    store.keys.destroy("acme")
    with store.opened(digest) as folder:
        assert tree_digest(tree_files(folder)) == digest
    store.keys.destroy("globex")
    with pytest.raises(Shredded):
        store.opened(digest).__enter__()


def test_the_tenants_key_file_alone_opens_it(store: FsspecArtifactStore, weights: Path) -> None:
    """As `age -d -i FILE` does, which reads the last line of the file."""
    store.put_tree(weights, "acme")
    key = store.keys.folder / "acme.key"
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    identity = pyrage.x25519.Identity.from_str(key.read_text().splitlines()[-1])
    assert pyrage.decrypt(store.fs.cat_file(sealed(store, "acme")), [identity]) == SECRET
    assert key.read_text().splitlines()[0] == f"# public key: {store.keys.recipient('acme')}"


def test_a_plain_tree_is_opened_where_it_lies_and_sealed_on_demand(store: FsspecArtifactStore, weights: Path) -> None:
    digest = store.put_tree(weights)
    with store.opened(digest) as folder:
        assert folder == store.tree(digest)
    assert store.readable(digest)
    store.seal(digest, "acme")
    store.seal(digest, "acme")
    assert not [name for name, data in held(store).items() if SECRET[:64] in data]
    assert not (store.cache / hex_of(digest)).exists()
    with store.opened(digest) as folder:
        assert tree_digest(tree_files(folder)) == digest


def test_without_its_key_it_is_shredded_and_a_new_key_does_not_open_it(
    store: FsspecArtifactStore, weights: Path
) -> None:
    digest = store.put_tree(weights, "acme")
    first = store.keys.recipient("acme")
    store.keys.destroy("acme")
    store.keys.destroy("acme")
    assert (store.readable(digest), store.keys.public("acme")) == (False, None)
    with pytest.raises(Shredded, match=r"key of tenant acme .* was destroyed"):
        store.opened(digest).__enter__()
    with pytest.raises(Shredded, match="assay tenant restore"):
        store.put_tree(weights, "acme")
    store.keys.renew("acme")
    assert store.keys.recipient("acme") != first
    assert not store.readable(digest)
    store.put_tree(weights, "acme")
    with store.opened(digest) as folder:
        assert tree_digest(tree_files(folder)) == digest
    store.keys.renew("acme")
    assert store.readable(digest), "a key that was not destroyed stays"


def test_a_vault_that_is_not_there_is_no_shred(store: FsspecArtifactStore, weights: Path) -> None:
    digest = store.put_tree(weights, "acme")
    shutil.rmtree(store.keys.folder)
    with pytest.raises(Missing, match="the key of tenant acme is not in"):
        store.opened(digest).__enter__()
    assert not store.readable(digest)


def test_a_key_that_was_changed_is_told(store: FsspecArtifactStore, weights: Path) -> None:
    digest = store.put_tree(weights, "acme")
    (store.keys.folder / "acme.key").write_text("# nothing\n")
    with pytest.raises(Tampered, match=r"acme.key is not the key of tenant acme any more"):
        store.opened(digest).__enter__()


@pytest.mark.parametrize("harm", ["flipped", "cut", "swapped", "sealed by another", "gone"])
def test_harm_to_a_sealed_file_is_named(store: FsspecArtifactStore, weights: Path, harm: str) -> None:
    digest = store.put_tree(weights, "acme")
    path = sealed(store, "acme")
    data = store.fs.cat_file(path)
    stranger = pyrage.encrypt(SECRET, [pyrage.x25519.Identity.generate().to_public()])
    made = {
        "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        "cut": data[:70_000],
        "swapped": store.fs.cat_file(sealed(store, "acme", "adapter_config.json")),
        "sealed by another": stranger,
    }
    if harm == "gone":
        store.fs.rm_file(path)
    else:
        store.fs.pipe_file(path, made[harm])
    with pytest.raises((Tampered, Missing), match=r"adapter_model.safetensors (was changed|is missing)"):
        store.opened(digest).__enter__()
    assert store.put_tree(weights, "acme") == digest


def test_what_a_killed_process_had_open_goes_with_the_next_opening(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from resources.scratch import scratch
with scratch(Path({str(tmp_path)!r}), memory=Path({str(tmp_path)!r})) as folder:
    (folder / "weights").write_text("plain")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = Path(done.stdout.strip())
    assert (left / "weights").exists()
    with scratch(tmp_path, memory=tmp_path) as mine:
        assert not left.exists()
        with scratch(tmp_path, memory=tmp_path):
            assert mine.exists(), "one that is in use stays"


def test_without_memory_for_files_or_with_a_strangers_folder_there_it_is_opened_below_home(tmp_path: Path) -> None:
    with scratch(tmp_path / "cache", memory=tmp_path / "none") as folder:
        assert folder.parent == tmp_path / "cache" / "opened"
    (tmp_path / f"assay-{os.getuid()}").mkdir(mode=0o755)
    with scratch(tmp_path / "cache", memory=tmp_path) as folder:
        assert folder.parent == tmp_path / "cache" / "opened"
        assert folder.parent.stat().st_mode & 0o777 == 0o700
