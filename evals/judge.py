"""A judge: a model behind an OpenAI-compatible endpoint, what it is asked, and how its verdict is read.

Pointwise it judges one answer by a rubric; pairwise which of two is better, asked in both orders (Zheng et al. 2023,
arXiv:2306.05685, section 3.4); or it is the model that one of ragas' metrics asks. A judge that says nothing that can
be read has failed on the item: a failure is kept and counted, never taken for a verdict and never left out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from data_contracts.actions import code_version
from data_contracts.digests import Digest, sha256_json
from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.judging import JudgePolicy
from evals import ragas_metrics
from evals.protocols import Embeds, JudgeEndpoint
from pipelines.recipes.product import ROOT

FOLDER = ROOT / "evals" / "judges"
FAILED, INCONSISTENT = "failed", "inconsistent"
_PLACE = re.compile(r"\{([a-z]+)\}")
_CODE = ("evals.judge", "evals.ragas_metrics")
T = TypeVar("T")
Fields = Mapping[str, str | tuple[str, ...]]
"""What is judged of one item: field -> text, or several texts (contexts)."""


class SetMapping(Frozen):
    """How a file of labelled items is read: the column of each field, the column of people's label, what each label
    means in the judge's words (``null``: such items are left out), and the column whose equal values make a cluster."""

    columns: dict[str, str]
    label: str
    labels: dict[str, str | None]
    cluster: str | None = None


class JudgeDecoding(Frozen):
    max_tokens: int = Field(ge=1)
    temperature: float = Field(default=0.0, ge=0)
    seed: int = 7


class PromptJudge(Frozen):
    """``prompt`` has a place {field} for each field; a pairwise one has {first} and {second} among them. ``verdicts``
    are the words that it may end with and the score of each, pairwise that of what stands first: 1, 0, or 0.5 for a
    tie. ``ordered``: the words are steps of a scale."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    asks: Literal["pointwise", "pairwise"]
    system: str
    prompt: str
    verdicts: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=2)
    ordered: bool = False
    decoding: JudgeDecoding
    set: SetMapping

    @model_validator(mode="after")
    def _fits(self) -> "PromptJudge":
        if self.asks == "pairwise":
            if sorted(self.verdicts.values()) not in ([0, 1], [0, 0.5, 1]):
                raise ValueError("verdicts: a pairwise judge has one word each for 1, 0 and, where it may tie, 0.5")
            if not {"first", "second"} <= self.fields():
                raise ValueError("prompt: a pairwise judge needs the places {first} and {second}")
        if {FAILED, INCONSISTENT} & set(self.verdicts):
            raise ValueError(f"verdicts: {FAILED} and {INCONSISTENT} are no words for a verdict")
        _check_set(self.set, self.fields(), self.verdicts)
        return self

    def fields(self) -> frozenset[str]:
        return frozenset(_PLACE.findall(self.prompt))

    def software(self) -> str:
        return code_version("evals.judge")


class RagasJudge(Frozen):
    """The model that a metric of ragas asks, by ragas' own prompts. From ``threshold`` its score counts as the verdict
    ``yes``, which is how it is calibrated; as a metric it keeps its score."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    asks: Literal["ragas"]
    metric: ragas_metrics.Judged
    threshold: float = Field(gt=0, le=1)
    decoding: JudgeDecoding
    set: SetMapping

    @model_validator(mode="after")
    def _fits(self) -> "RagasJudge":
        _check_set(self.set, self.fields(), self.verdicts)
        return self

    @property
    def verdicts(self) -> dict[str, float]:
        return {"yes": 1.0, "no": 0.0}

    @property
    def ordered(self) -> bool:
        return False

    def fields(self) -> frozenset[str]:
        return frozenset(ragas_metrics.JUDGED[self.metric])

    def software(self) -> str:
        """ragas writes the prompts: another version of it is another judge."""
        return f"{code_version(*_CODE)}, ragas {version('ragas')}"


class Judge(NamedTuple):
    """A judge file with the model that answers. ``template``: chat template to send along, if its server has none."""

    file: PromptJudge | RagasJudge
    model: str
    template: str = ""

    @property
    def identity(self) -> Digest:
        """Model, prompt, decoding and code; not the set, and not where the model is served."""
        asked = self.file.model_dump(mode="json", exclude={"set"})
        return sha256_json(
            {"judge": asked, "model": self.model, "template": self.template, "code": self.file.software()}
        )


class Verdict(NamedTuple):
    """``word`` is one of the judge's, ``inconsistent`` or ``failed``; then ``failures`` say why. ``score`` is in [0, 1]
    and 0 where it failed. ``words`` are those in each order that was asked, where it was read."""

    word: str
    score: float
    asked: int = 1
    failures: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def load_judge(name: str) -> PromptJudge | RagasJudge:
    """A file of ``evals/judges`` by name, or any YAML by path. Raises `BadInput`."""
    kind: TypeAdapter[PromptJudge | RagasJudge] = TypeAdapter(
        Annotated[PromptJudge | RagasJudge, Field(discriminator="asks")]
    )
    return _load(_file(name, FOLDER), kind.validate_python)


def load_policy(name: str) -> JudgePolicy:
    """A file of ``evals/judges/policies`` by name, or any YAML by path. Raises `BadInput`."""
    return _load(_file(name, FOLDER / "policies"), JudgePolicy.model_validate)


def load_mapping(path: Path, file: PromptJudge | RagasJudge) -> SetMapping:
    """Another file's columns and labels for this judge. Raises `BadInput`."""
    mapping = _load(_file(str(path), FOLDER), SetMapping.model_validate)
    try:
        _check_set(mapping, file.fields(), file.verdicts)
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from error
    return mapping


def judge_all(
    judge: Judge,
    endpoint: JudgeEndpoint,
    items: Mapping[str, Fields],
    embedder: Embeds | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Verdict]:
    """A verdict on every item. Raises `Unavailable` where the endpoint cannot be reached or refuses model or key."""
    if isinstance(judge.file, RagasJudge):
        return _by_ragas(judge, judge.file, endpoint, items, embedder, progress)
    orders = (False, True) if judge.file.asks == "pairwise" else (False,)
    bodies = {(item, swapped): request(judge, fields, swapped) for item, fields in items.items() for swapped in orders}
    names = {place: sha256_json(body) for place, body in bodies.items()}
    different = {names[place]: body for place, body in bodies.items()}
    texts: dict[Digest, str] = {}

    def answered(name: Digest, answer: Any) -> None:
        texts[name] = answer.text
        progress(len(texts), len(different))

    failed = endpoint.ask(different, answered)
    words = tuple(judge.file.verdicts)
    read = {
        place: _read(texts[name], words) if name in texts else (None, _failure(failed[name]))
        for place, name in names.items()
    }
    return {item: _verdict(judge.file, [read[item, swapped] for swapped in orders]) for item in items}


def request(judge: Judge, fields: Fields, swapped: bool = False) -> dict[str, Any]:
    """Body of the chat completion. Texts are put in once, so that a place in a judged text stays what it is."""
    file = judge.file
    if isinstance(file, RagasJudge):
        raise TypeError("ragas writes its own requests")
    shown = {**fields, "first": fields["second"], "second": fields["first"]} if swapped else fields
    texts = {field: text if isinstance(text, str) else "\n\n".join(text) for field, text in shown.items()}
    prompt = _PLACE.sub(lambda place: texts[place[1]], file.prompt)
    messages = [{"role": "system", "content": file.system}, {"role": "user", "content": prompt}]
    body = {"model": judge.model, "messages": messages, **file.decoding.payload()}
    return body | ({"chat_template": judge.template} if judge.template else {})


def read_verdict(text: str, words: Sequence[str]) -> str | None:
    """The word that the last line consists of, alone or after "Verdict"; ``None`` where it says anything else."""
    lines = [line for line in text.splitlines() if re.search(r"\w", line)]
    choices = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
    said = re.fullmatch(rf"\W*(?:(?:final )?verdict\W+)?({choices})\W*", lines[-1], re.IGNORECASE) if lines else None
    return next(word for word in words if word.lower() == said[1].lower()) if said else None


def _read(text: str, words: Sequence[str]) -> tuple[str | None, str]:
    """The word, or none and why."""
    if not text.strip():
        return None, "empty answer"
    word = read_verdict(text, words)
    return word, "" if word else "no verdict in the answer"


def _verdict(file: PromptJudge, read: Sequence[tuple[str | None, str]]) -> Verdict:
    """Of one order, or of both, the second of which is turned round."""
    words = tuple(word for word, _ in read if word)
    failures = tuple(why for word, why in read if word is None)
    if failures:
        return Verdict(FAILED, 0.0, len(read), failures, words)
    if len(words) == 2 and file.verdicts[words[0]] != 1 - file.verdicts[words[1]]:
        return Verdict(INCONSISTENT, 0.5, 2, (), words)
    return Verdict(words[0], file.verdicts[words[0]], len(read), (), words)


def _by_ragas(
    judge: Judge,
    file: RagasJudge,
    endpoint: JudgeEndpoint,
    items: Mapping[str, Fields],
    embedder: Embeds | None,
    progress: Callable[[int, int], None],
) -> dict[str, Verdict]:
    decoding = file.decoding.payload()
    extra = {"extra_body": {"chat_template": judge.template}} if judge.template else {}
    scores = ragas_metrics.judged(
        file.metric, endpoint, judge.model, decoding | extra, items, embedder, lambda done: progress(done, len(items))
    )
    lowest = -1.0 if file.metric == "answer_relevancy" else 0.0  # a cosine; elsewhere a judge has made up a verdict
    verdicts = {}
    for item, score in scores.items():
        if isinstance(score, str):
            verdicts[item] = Verdict(FAILED, 0.0, failures=(_failure(score),))
        elif not lowest <= score <= 1 + 1e-6:  # nor is NaN
            verdicts[item] = Verdict(FAILED, 0.0, failures=("the score is no number from 0 to 1",))
        else:
            word = "yes" if score >= file.threshold else "no"
            verdicts[item] = Verdict(word, min(1.0, max(0.0, score)), words=(word,))
    return verdicts


def _failure(reason: str) -> str:
    """The reason under one name, however deep in which library the time ran out."""
    return "no answer in time" if "timeout" in reason.lower() else reason


def _file(name: str, folder: Path) -> Path:
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.yaml")))
        raise BadInput(f"no file {path}: name a YAML, or one of {known}")
    return path


def _load(path: Path, read: Callable[[Any], T]) -> T:
    try:
        return read(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error


def _check_set(mapping: SetMapping, fields: frozenset[str], words: Mapping[str, float]) -> None:
    if missing := sorted(fields - set(mapping.columns)):
        raise ValueError(f"set.columns: no column for {', '.join(missing)}, which the judge is asked about")
    if strange := sorted({word for word in mapping.labels.values() if word} - set(words)):
        raise ValueError(f"set.labels: {', '.join(strange)} is no verdict of the judge ({', '.join(words)})")
