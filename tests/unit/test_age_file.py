"""Sealed files: only their readers open them, and nothing is taken for whole that is not."""

import os
from pathlib import Path

import pytest

from data_contracts.errors import BadInput, Tampered
from resources.age_file import opened, sealed
from resources.ssh_signatures import create_key, public_key

CHUNK = 64 * 1024
SEALED_CHUNK = CHUNK + 16  # with its tag


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    """Private keys; each has its public key beside it."""
    for name in ("ann", "bea", "eve"):
        create_key(tmp_path / name, name)
        public(tmp_path / name).write_text(public_key(tmp_path / name))
    return [tmp_path / name for name in ("ann", "bea", "eve")]


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def seal(path: Path, data: bytes, *keys: Path) -> Path:
    with sealed(path, [public(key) for key in keys]) as out:
        out.write(data)
    return path


def read(path: Path, key: Path) -> bytes:
    with opened(path, key) as source:
        return source.read()


def test_each_reader_and_nobody_else_can_read(tmp_path: Path, keys: list[Path]) -> None:
    ann, bea, eve = keys
    data = os.urandom(5 * CHUNK + 7)
    file = seal(tmp_path / "file.age", data, ann, bea)
    assert read(file, ann) == read(file, bea) == data
    assert file.stat().st_mode & 0o777 == 0o600
    assert data[:64] not in file.read_bytes()
    with pytest.raises(BadInput, match=r"cannot be opened with .*eve"):
        read(file, eve)
    with pytest.raises(BadInput, match="is no SSH key"):
        read(file, public(ann))
    with pytest.raises(BadInput, match="is no SSH key"):
        seal(tmp_path / "other.age", data, file)
    assert not (tmp_path / "other.age").exists()


@pytest.mark.parametrize("left", [0, 3, CHUNK])
def test_the_end_is_checked_also_for_who_reads_less(tmp_path: Path, keys: list[Path], left: int) -> None:
    whole = seal(tmp_path / "file.age", os.urandom(4 * CHUNK), keys[0]).read_bytes()
    with opened(tmp_path / "file.age", keys[0]) as source:
        assert len(source.read(left)) == left
    cut = tmp_path / "cut.age"
    cut.write_bytes(whole[:-SEALED_CHUNK])
    with pytest.raises(Tampered, match="changed or cut short"), opened(cut, keys[0]) as source:
        source.read(left)


def test_a_changed_a_swapped_and_a_missing_chunk_are_found(tmp_path: Path, keys: list[Path]) -> None:
    whole = seal(tmp_path / "file.age", os.urandom(4 * CHUNK), keys[0]).read_bytes()
    start = len(whole) - 4 * SEALED_CHUNK
    chunks = [whole[start + n * SEALED_CHUNK :][:SEALED_CHUNK] for n in range(4)]
    flipped = bytes([chunks[1][9] ^ 1])
    wrong = {
        "changed": [chunks[0], chunks[1][:9] + flipped + chunks[1][10:], *chunks[2:]],
        "swapped": [chunks[0], chunks[2], chunks[1], chunks[3]],
        "missing": [chunks[0], chunks[2], chunks[3]],
        "twice": [*chunks, chunks[3]],
        "cut": [*chunks[:3], chunks[3][:-1]],
    }
    for name, made in wrong.items():
        file = tmp_path / name
        file.write_bytes(whole[:start] + b"".join(made))
        with pytest.raises(Tampered, match=name):
            read(file, keys[0])


def test_what_fails_inside_is_told_and_leaves_no_file(tmp_path: Path, keys: list[Path]) -> None:
    file = tmp_path / "file.age"
    with pytest.raises(TypeError), sealed(file, [public(keys[0])]) as out:
        out.writelines([bytes(3 * CHUNK), "no bytes"])  # type: ignore[list-item]
    assert sorted(tmp_path.glob("*file*")) == []
    assert sorted(tmp_path.glob(".*")) == []
    seal(file, bytes(9 * CHUNK), keys[0])
    with pytest.raises(ZeroDivisionError), opened(file, keys[0]):
        raise ZeroDivisionError
    with pytest.raises(BadInput, match="there is no file"):
        read(tmp_path / "gone.age", keys[0])
    with pytest.raises(BadInput, match="exists already"):
        seal(file, b"", keys[0])


def test_a_full_disk_is_told_as_such(keys: list[Path], tmp_path: Path) -> None:
    (tmp_path / ".file.age.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        seal(tmp_path / "file.age", bytes(200 * CHUNK), keys[0])
    assert not (tmp_path / "file.age").exists()
