"""A teacher's answers, kept as they come: what was answered before a crash is not asked, and paid for, again."""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from data_contracts.digests import Digest
from data_contracts.errors import BadInput
from pipelines.stages.data.synthetic.validate import Completion


class AnswerFile:
    """JSON lines of request digest and completion beside the output, mode 0600, appended to by one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[Digest, Completion] = {}

    def __enter__(self) -> "AnswerFile":
        if not self.path.parent.is_dir():
            raise BadInput(f"{self.path}: the folder {self.path.parent} does not exist; make it first")
        self._file: BinaryIO = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            whole = self._read()
        except BlockingIOError:
            self._file.close()
            raise BadInput(f"{self.path} is being written by another run: wait for it, or name another --out") from None
        except BaseException:
            self._file.close()
            raise
        self._file.truncate(whole)  # a line that a crash cut off
        self._file.seek(whole)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.known:
            self.path.unlink()
        self._file.close()

    def add(self, request: Digest, completion: Completion) -> None:
        self.known[request] = completion
        line = json.dumps({"request": request, "text": completion.text, "finish": completion.finish})
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def _read(self) -> int:
        """Learn every whole line; returns where the last one ends."""
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                kept = json.loads(line)
                self.known[kept["request"]] = Completion(kept["text"], kept["finish"])
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(f"{self.path}, line {number} is no kept answer: delete the file to ask anew") from error
            end += len(line)
        return end
