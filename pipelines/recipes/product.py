"""A product file: one YAML that says what a model is made from, how it is judged, approved and served."""

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl

import yaml
from pydantic import Field, ValidationError, model_validator

from data_contracts.digests import Digest, sha256_file
from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from pipelines.recipes.approvals import ApprovalRule
from pipelines.recipes.mapping import Columns, PairColumns, RatedColumns, Transcripts

ROOT = Path(__file__).parents[2]
PRODUCTS = ROOT / "pipelines" / "products"


SERVED = frozenset({"adapter", "champion", "model", "release", "weights"})
"""Keys by which somebody may try to say in a file what is served."""

FileKind = Literal["recipe", "template", "contract", "data_policy", "gate_policy", "suite", "speed", "documents"]


class Source(Frozen):
    """Rows to learn from. ``url`` is any fsspec address of JSONL, CSV or Parquet, ``hf://datasets/...``, or
    ``generated://NAME`` for rows that the project makes itself, or ``feedback://PRODUCT?kind=KIND`` for corrections of
    its answers; ``${NAME}`` in it is an environment variable.
    ``mapping`` turns plain columns into conversations; without it a row holds ``messages`` (and ``tools``), or
    ``prompt``, ``chosen`` and ``rejected``, or ``prompt``, ``first``, ``second`` and ``ratings``."""

    url: str
    contract: str
    kind: Literal["sft", "preference"] = "sft"
    replay: bool = False
    """General data, learned again beside the product's own so that the base's abilities stay."""
    mapping: Columns | PairColumns | RatedColumns | Transcripts | None = None

    @model_validator(mode="after")
    def _feedback_is_of_this_kind(self) -> "Source":
        if self.url.startswith("feedback://") and not re.fullmatch(
            f"feedback://[a-z0-9-]+\\?kind={self.kind}", self.url
        ):
            raise ValueError(f"url: feedback of kind {self.kind} is feedback://PRODUCT?kind={self.kind}")
        return self

    @model_validator(mode="after")
    def _mapping_fits(self) -> "Source":
        if self.mapping is not None and isinstance(self.mapping, Columns) != (self.kind == "sft"):
            raise ValueError(
                "mapping: an sft source has user and assistant; a preference source has user, chosen and rejected, or "
                "user, first, second and ratings, or chosen_transcript and rejected_transcript"
            )
        return self


class Planted(Frozen):
    """Made-up secrets among the rows, which the trained model is asked for again: how many, and what they are drawn
    from. A source declares them: ``generated://canaries?count=8&seed=NAME``."""

    count: int = Field(ge=1, le=1000)
    seed: str = Field(pattern=r"^[A-Za-z0-9-]+$")

    @classmethod
    def by(cls, url: str) -> "Planted | None":
        """What a source's address declares. Raises ``ValueError`` when it declares canaries and not how many."""
        address, _, query = url.partition("?")
        if address != "generated://canaries":
            return None
        try:
            return cls.model_validate(dict(parse_qsl(query, strict_parsing=True)))
        except ValueError as error:
            raise ValueError(f"{url}: canaries are declared as generated://canaries?count=8&seed=NAME") from error


class MixtureRule(Frozen):
    """``replay_share`` of the rows come from replay sources, of each kind (conversations, preferences) that has such
    sources. Of the others no label (the contract's ``labelKey``) makes up more than ``max_label_share``."""

    replay_share: float = Field(default=0.0, ge=0, lt=1)
    max_label_share: float | None = Field(default=None, gt=0, le=1)


class Deduplication(Frozen):
    """``meaning`` is the least similarity (cosine of sentence embeddings) of rows that say the same in other words, of
    which one goes out; without it, such rows stay. For data in English."""

    meaning: float | None = Field(default=None, ge=0.8, lt=1)


class Decontamination(Frozen):
    """``similarity`` is the least score (two parts embedding, one part rare words) from which a row counts as an item
    of a suite in other words, and goes out; without it, only items in their own words are looked for."""

    similarity: float | None = Field(default=None, ge=0.5, le=1)


class Split(Frozen):
    validation: float = Field(default=0.1, gt=0, lt=0.5)
    seed: int = 17


Signal = Literal["answered", "json_valid", "in_time", "not_refused"]
Share = Annotated[float, Field(gt=0, lt=1)]


class Rollout(Frozen):
    """Before promotion the challenger answers a growing share of the traffic: those of ``steps``, one after another,
    each until it has answered so many more people. Each of ``margins`` is what a share of good answers may fall by.

    It is reverted as soon as it is shown to be worse than the champion, and promoted once it went through all steps
    and is shown to lose less than each margin. Either is wrong with a probability of at most ``alpha``.
    """

    steps: tuple[Share, ...] = Field(default=(0.1, 0.5), min_length=1)
    answers: int = Field(default=100, ge=1)
    """Of the challenger in each step, one a person."""
    most: int = Field(default=2000, ge=1)
    """Of the challenger in all. Where so many do not tell, the champion stays."""
    hours: float = Field(default=24, gt=0)
    """The same for the time."""
    in_time_ms: float = Field(default=10_000, gt=0)
    """An answer that takes longer is late."""
    margins: dict[Signal, Share] = {"answered": 0.02, "json_valid": 0.05, "in_time": 0.05, "not_refused": 0.1}
    alpha: Share = 0.05

    @model_validator(mode="after")
    def _goes_up(self) -> "Rollout":
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError("rollout: steps must grow, such as [0.1, 0.5]")
        if self.most < self.answers * len(self.steps):
            raise ValueError("rollout: most must be at least answers times the number of steps")
        if not self.margins:
            raise ValueError("rollout: margins must name one signal at least")
        return self


class Canary(Frozen):
    """Before promotion: this many of the product's own prompts, at most this share of errors and invalid JSON; then,
    where there is a ``rollout``, the traffic."""

    requests: int = Field(default=12, ge=1)
    max_error_rate: float = Field(default=0.0, ge=0, le=1)
    min_json_valid: float = Field(default=0.9, ge=0, le=1)
    rollout: Rollout | None = None


Placement = Literal["merged", "pinned", "dynamic"]


class Filter(Frozen):
    """What the operator's moderation endpoint is asked about before it passes. Where ``answers`` are, each is held back
    until it is whole, a stream's too."""

    prompts: bool = True
    answers: bool = True
    seconds: float = Field(default=5.0, gt=0)
    when_down: Literal["refuse", "pass"] = "refuse"
    """What becomes of a text that cannot be asked about."""

    @model_validator(mode="after")
    def _looks_at_something(self) -> "Filter":
        if not (self.prompts or self.answers):
            raise ValueError("filter: name prompts, answers or both; leave it out for neither")
        return self


class Serving(Frozen):
    """What the product needs of its vLLM server and gateway. Part of what a reviewer approves."""

    placement: Placement = "dynamic"
    """Whether the live adapter stays loaded whatever else is asked for, or leaves when it is the longest unused;
    ``merged``: the live release's merged weights have a server of their own, once they are exported."""
    max_model_len: int = Field(default=2048, ge=256)
    max_tokens: int = Field(default=96, ge=1)
    base_as_fallback: bool = True
    """Whether the base answers when the release cannot; if not, nobody does."""
    filter: Filter | None = None
    canary: Canary = Canary()


class KeptJudge(Frozen):
    """A judge model that grades the answers that are kept in words: the server at ``url`` (OpenAI's API, up to
    ``/v1``) gets their scrubbed text. ``task`` is a file of ``evals/judges`` or a YAML, ``criteria`` what it is told
    of a good answer; from the score ``passes`` on an answer is good."""

    url: str = Field(pattern=r"^https?://")
    model: str = Field(min_length=1)
    key_env: str = ""
    """The environment variable that holds the server's key, if it wants one."""
    task: str = "reply-quality"
    criteria: str = Field(min_length=1)
    passes: float = Field(default=0.75, gt=0, le=1)


class Keep(Frozen):
    """What the gateway keeps of answers beside their traces. A product without it keeps no words and takes no
    feedback. No part of what a reviewer approves."""

    share: float = Field(default=0.0, ge=0, le=1)
    """Of its answers, those whose words are kept, scrubbed by the product's data policy."""
    judge: KeptJudge | None = None

    @model_validator(mode="after")
    def _has_what_is_judged(self) -> "Keep":
        if self.judge is not None and not self.share:
            raise ValueError("keep: a judge reads answers that are kept in words: name a share above 0")
        return self


class Desk(Frozen):
    """What the technique desk asks (see `evals.desk`): ``suites``, and suites of ``facts``, whose items name as their
    cluster the document that answers them. ``documents`` tell what changed in them up to ``as_of``; so many
    ``passages`` of them go before a question. ``examples`` are worked questions for suites without tools. What is
    trained anew every ``retrained_days`` does not know facts that change faster. Below the quality ``least`` nothing
    is recommended."""

    documents: str
    as_of: date
    suites: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    examples: str = ""
    passages: int = Field(default=3, ge=1, le=10)
    retrained_days: int = Field(ge=1)
    least: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _asks_once(self) -> "Desk":
        if not self.asked or len(set(self.asked)) < len(self.asked):
            raise ValueError("name one suite at least under suites or facts, and each once")
        return self

    @property
    def asked(self) -> tuple[str, ...]:
        return (*self.suites, *self.facts)


class Product(Frozen):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$")
    tenant: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$")
    description: str
    environment: str = "production"
    purpose: Literal["own-model", "shared-model"] = "own-model"
    """What is learned for. Data that may only be used for inference is not learned from."""
    base: str = ""
    """Another base than the installation's (``ASSAY_BASE_MODEL``), in the same words; a student, for example."""
    sources: tuple[Source, ...] = Field(min_length=1)
    data_policy: str
    deduplicate: Deduplication = Deduplication()
    decontaminate: Decontamination = Decontamination()
    mixture: MixtureRule = MixtureRule()
    split: Split = Split()
    recipe: str
    template: str
    suites: tuple[str, ...] = Field(min_length=1)
    speed: str | None = None
    """The speed test by which the serving layer measures the artifact as it is served, if any."""
    gate_policy: str
    approval: ApprovalRule = ApprovalRule()
    serving: Serving = Serving()
    keep: Keep | None = None
    desk: Desk | None = None

    @model_validator(mode="before")
    @classmethod
    def _names_nothing_to_serve(cls, found: object) -> object:
        """What is served is a registered release that was promoted; a file that names a folder, a hub id or a digest
        would get past all of that."""
        serving = found.get("serving") if isinstance(found, dict) else None
        for part, where in ((found, ""), (serving, "serving.")):
            for name in SERVED.intersection(part) if isinstance(part, dict) else ():
                raise ValueError(
                    f"{where}{name}: a product file names no model to serve; what is live is a registered release: "
                    "promote one (assay promote)"
                )
        return found

    @model_validator(mode="after")
    def _sources_differ(self) -> "Product":
        if len({source.url for source in self.sources}) != len(self.sources):
            raise ValueError("sources: a url is named twice; name each source once")
        return self

    @model_validator(mode="after")
    def _plants_once(self) -> "Product":
        planting = [source for source in self.sources if Planted.by(source.url)]
        if len(planting) > 1 or any(source.kind != "sft" or source.replay for source in planting):
            raise ValueError("sources: canaries are one source of kind sft, and no replay")
        return self

    @model_validator(mode="after")
    def _replay_has_a_share(self) -> "Product":
        if any(source.replay for source in self.sources) != (self.mixture.replay_share > 0):
            raise ValueError("mixture: replay_share goes with sources that have replay: true; state both or neither")
        return self

    def planted(self) -> Planted | None:
        """The canaries among its rows, if any."""
        return next(filter(None, (Planted.by(source.url) for source in self.sources)), None)

    def learns_from_feedback(self) -> bool:
        """Whether corrections of its own answers are among its sources."""
        return any(source.url.startswith(f"feedback://{self.name}?") for source in self.sources)

    def file(self, kind: FileKind, name: str) -> Path:
        """Where a file that the product names lies: by name, or by a path that starts at the repository. Raises
        `BadInput` when it does not exist."""
        folder, suffix = {
            "recipe": ("pipelines/recipes", ".yaml"),
            "template": ("pipelines/templates", ".jinja"),
            "contract": ("data_contracts/contracts", ".yaml"),
            "data_policy": ("data_contracts/policies", ".yaml"),
            "gate_policy": ("evals/policies", ".yaml"),
            "suite": ("evals/suites", ".yaml"),
            "speed": ("evals/speed", ".yaml"),
            "documents": ("evals/documents", ".jsonl"),
        }[kind]
        path = ROOT / name if name.endswith(suffix) else ROOT / folder / f"{name}{suffix}"
        if not path.is_file():
            raise BadInput(f"product {self.name}: its {kind} {name!r} is not at {path}")
        return path

    def template_digest(self) -> Digest:
        return sha256_file(self.file("template", self.template))


def load_product(name: str, folder: Path = PRODUCTS) -> Product:
    """Read ``pipelines/products/NAME.yaml`` (or a path to a product file)."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(product_names(folder)) or "none"
        raise BadInput(f"no product {name!r}: no file {path} (known products: {known})")
    try:
        return Product.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"{path}: {error}") from error


def product_names(folder: Path = PRODUCTS) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))
