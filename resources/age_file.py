"""Files that only the holders of certain SSH keys can read, in the age format (age-encryption.org/v1).

Written and read as a stream: chunks of 64 KiB, each authenticated with its place and whether it is the last (the
STREAM construction, eprint.iacr.org/2015/189), so that a change, a swap and a cut are found. The program ``age`` opens
them too (``age -d -i KEY``).
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from data_contracts.errors import AssayError, BadInput, Tampered

_READ = 1 << 20


@contextmanager
def sealed(path: Path, readers: Sequence[Path]) -> Iterator[BinaryIO]:
    """A handle whose bytes only ``readers`` (SSH public key files, Ed25519 or RSA) can read again. The file, mode 0600,
    appears when it is whole. Raises `BadInput` for a key that is none, and where the file exists already."""
    import pyrage

    keys = [_key(each, lambda data: pyrage.ssh.Recipient.from_str(data.decode().strip())) for each in readers]
    if path.exists():
        raise BadInput(f"{path} exists already: name another file")
    part = path.with_name(f".{path.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
            read, write = _pipe()
            job = _Beside(lambda: pyrage.encrypt_io(read, out, keys), read)
            try:
                with write:
                    yield write
            except BaseException:
                job.end()  # why nobody reads any more, if that was it
                raise
            job.end()
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def opened(path: Path, key: Path) -> Iterator[BinaryIO]:
    """A handle on what was sealed for the owner of the SSH private key file ``key``. Only what was read to the end of
    the block is known to be whole: raises `Tampered` there, or before. Raises `BadInput` for another's key, and where
    there is no such file."""
    import pyrage

    identity = _key(key, pyrage.ssh.Identity.from_buffer)
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    with path.open("rb") as source:
        read, write = _pipe()
        job = _Beside(lambda: pyrage.decrypt_io(source, write, [identity]), write)
        try:
            yield read
            while read.read(_READ):
                pass
        except BaseException:
            why = job.error  # before the thread fails because nobody reads any more
            read.close()
            with suppress(Exception):
                job.end()
            if why is not None:
                raise _told(why, path, key) from why
            raise
        read.close()
        try:
            job.end()
        except Exception as error:
            raise _told(error, path, key) from error


class _Beside:
    """Work in a thread of its own; the ``end`` of a pipe that it has is closed after it."""

    def __init__(self, work: Callable[[], Any], end: BinaryIO) -> None:
        self.error: BaseException | None = None
        self._work, self._end = work, end
        self._thread = threading.Thread(target=self._run, name="age", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait for it; raises what it failed with."""
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._work()
            self._end.flush()
        except BaseException as error:  # told by `end`, or by who holds the other end
            self.error = error
        finally:
            with suppress(OSError):
                self._end.close()


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    read, write = os.pipe()
    return os.fdopen(read, "rb"), os.fdopen(write, "wb")


def _key(path: Path, parse: Callable[[bytes], Any]) -> Any:
    import pyrage

    try:
        return parse(path.read_bytes())
    except (OSError, ValueError, pyrage.RecipientError, pyrage.IdentityError) as error:
        raise BadInput(f"{path} is no SSH key that can be used (Ed25519 or RSA, no passphrase): {error}") from error


def _told(error: BaseException, path: Path, key: Path) -> AssayError:
    import pyrage

    if isinstance(error, pyrage.DecryptError):
        return BadInput(
            f"{path} cannot be opened with {key}: {error}; give the private key, without a passphrase, of one that it "
            "was sealed for"
        )
    return Tampered(f"{path} was changed or cut short: {error}")
