"""A release as a GGUF file, answering through llama.cpp."""

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_contracts.digests import Digest
from data_contracts.errors import Refused, Unavailable
from evals.protocols import ChatModel, Question
from pipelines.stages.release.export import Source
from resources.gguf_file import Precision, write_gguf
from resources.merged_model import MergedModel, write_merged

FILE = "model.gguf"


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
    """Implements `evals.protocols.ChatModel`: the file in llama.cpp's own server, in this process and on the loopback
    address, one question at a time. The chat template is the file's."""

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
        said: dict[str, Any] = {}
        try:
            said = self._server.handle_chat_completions(body)
            text: str = said["choices"][0]["message"]["content"]
        except (ValueError, RuntimeError) as error:  # of a template, a schema or a question that it cannot take
            raise Refused(f"llama.cpp does not take a question to {self.file.name}: {_short(error)}") from error
        except KeyError as error:
            raise Unavailable(f"llama.cpp gave no answer: {json.dumps(said)[:300]}") from error
        return text

    @cached_property
    def _server(self) -> Any:
        import torch
        import xllamacpp

        wanted = xllamacpp.CommonParams()
        wanted.model.path = str(self.file)
        wanted.offline = True
        wanted.verbosity = -1
        wanted.warmup = False
        wanted.ui = False
        wanted.force_pure_content_parser = True  # an answer is text: no tool call is taken out of it
        threads = torch.get_num_threads()  # as many as the rest of the process: more than there are cores stand still
        wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = threads
        try:
            return xllamacpp.Server(wanted)
        except RuntimeError as error:
            raise Refused(f"llama.cpp does not load {self.file}: {_short(error)}") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
