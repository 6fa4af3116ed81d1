"""A release as a GGUF file, answering through llama.cpp."""

import json
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import httpx

from data_contracts.digests import Digest
from data_contracts.errors import Refused, Unavailable
from evals.protocols import ChatModel, Question
from pipelines.stages.release.export import Source
from resources.gguf_file import Precision, write_gguf
from resources.merged_model import MergedModel, write_merged

FILE = "model.gguf"
ROOT = Path(__file__).parents[1]


class GgufModel:
    """Implements `pipelines.stages.release.export.Exporter`: merged first, then written as one file."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self.format = "gguf" if precision == "base" else f"gguf-{precision}"

    def tools(self) -> dict[str, str]:
        return MergedModel().tools() | {name: version(name) for name in ("gguf", "xllamacpp")}

    def write(self, source: Source, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as merged:
            write_merged(source, Path(merged))
            write_gguf(Path(merged), folder / FILE, self.precision, source.name, source.release)

    def open(self, folder: Path) -> ChatModel:
        return LlamaCpp(folder / FILE)


class LlamaCpp:
    """Implements `evals.protocols.ChatModel`: the file in llama.cpp's own server, a process on the loopback address
    that ends with this object, one question at a time. The chat template is the file's."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def engine(self) -> str:
        return f"llama.cpp (xllamacpp {version('xllamacpp')})"

    def chat(self, questions: Mapping[Digest, Question], answered: Callable[[Digest, str], None]) -> None:
        for key, question in questions.items():
            answered(key, self._answer(question))

    def _answer(self, question: Question) -> str:
        import xllamacpp

        body = {name: value for name, value in question.items() if name != "structured_outputs"} | {"top_k": 1}
        if held := question.get("structured_outputs"):
            # Given as `json_schema`, it is checked against the prompt's last turn, fails and is dropped.
            body["grammar"] = xllamacpp.json_schema_to_grammar(json.dumps(held["json"]))
        try:
            answer = self.client.post("/v1/chat/completions", json=body)
            said = answer.json()
            if "error" in said:  # of a template, a schema or a question that it cannot take
                why = _short(said["error"]["message"])
                raise Refused(f"llama.cpp does not take a question to {self.file.name}: {why}")
            text: str = said["choices"][0]["message"]["content"]
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise Unavailable(f"llama.cpp gave no answer ({type(error).__name__}: {_short(str(error))})") from error
        return text

    @cached_property
    def client(self) -> httpx.Client:
        """To the server, which is started. Raises `Refused` for a file that it does not load."""
        import torch

        threads = torch.get_num_threads()  # as many as the rest of the process: more than there are cores stand still
        process = subprocess.Popen(
            [sys.executable, "-m", "resources.llama_server", str(self.file.resolve()), str(threads)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        weakref.finalize(self, _end, process)
        lines = process.stdout or ()
        word, _, what = next((line for line in lines if line.startswith(("listens ", "refused "))), "").partition(" ")
        if word != "listens":
            raise Refused(f"llama.cpp does not load {self.file}: {what.strip() or 'it ended without a word'}")
        client = httpx.Client(base_url=what.strip(), trust_env=False, timeout=httpx.Timeout(600, connect=5))
        weakref.finalize(self, client.close)
        return client


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
