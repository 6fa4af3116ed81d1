"""Personal data and secrets out of the rows: each value gives way to what the contract's operator makes of it, without
one to a made-up value, the same all over its row."""

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.contract import DataContract
from data_contracts.digests import Digest, hex_of, keyed_ref, sha256_bytes, sha256_file
from data_contracts.errors import BadInput
from data_contracts.manifests import DatasetManifest
from data_contracts.policy import PiiRule, load_policy
from pipelines.recipes.product import ROOT, Product
from pipelines.stages.data.batches import batched
from pipelines.stages.data.canaries import CANARY_MODULES, Watch
from pipelines.stages.data.certificate import certify, read_labelled, require
from pipelines.stages.data.item import Item, Row, content_of
from pipelines.stages.data.protocols import Finding, PiiAnalyzer
from pipelines.stages.data.rows import Outcome, Outlet, derive, load, step
from pipelines.stages.data.scrub_text import Operator, made
from pipelines.stages.data.substitutes import assign
from pipelines.stages.protocols import Parts

BATCH_ROWS = 256
"""Rows that the detector reads at a time."""
_SEPARATOR = "\n\n"
_LOOSE = ("PERSON", "LOCATION")
REPLACED = {"PERSON": 0.85, "LOCATION": 0.85, "STREET_ADDRESS": 0.8, "PHONE_NUMBER": 0.4} | dict.fromkeys(
    ("EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS", "URL_SECRET", "SECRET"), 0.0
)
"""Kinds that the line replaces, and the least score of each. The detector finds more: dates, ages, titles,
nationalities, organisations and plain URLs are seldom personal alone, and rows lose their sense without them."""


def scrubbed(parts: Parts, product: Product, ledgered: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """Rows without personal data; a replaced value keeps its slot, in the text and in the JSON of a tool call alike.
    Where the policy demands it, the detector is measured first, and the certificate stays with the data set. Raises
    `Refused` when it finds too little."""
    rule = load_policy(product.file("data_policy", product.data_policy)).pii

    def work(out: Outlet) -> Outcome:
        certificate = certificate_of(parts, rule) if rule else None
        operators = _operators(parts, ledgered)
        kinds: Counter[str] = Counter()
        watch, touched = Watch(product), 0
        for some in batched(_found(parts, load(parts, ledgered))):
            items = [item for item, _, _ in some]
            keys = _keys(parts, [item.subject for item in items if operators[item.origin.contract] is Operator.HASH])
            rows: list[Row] = []
            for item, text, findings in some:
                values = _values(text, findings)
                kinds.update(values.values())
                touched += bool(values)
                new = scrub(item.row, values, operators[item.origin.contract], keys.get(item.subject, b""))
                rows.append(new | {"record": item.row["record"], "group": item.row["group"]})
            for item in derive(parts, items, rows):
                watch.see(item)
                out.keep(item)
        facts = {"entities": dict(sorted(kinds.items())), "rows_with_entities": touched, "certificate": certificate}
        return Outcome(facts | watch.scrubbed())

    modules = [
        "pipelines.stages.data.scrub",
        "pipelines.stages.data.scrub_text",
        "pipelines.stages.data.substitutes",
        "pipelines.stages.data.certificate",
        *CANARY_MODULES,
    ]
    config: dict[str, Any] = {"analyzer": parts.pii.identity, "rule": rule.payload() if rule else None}
    config["labelled"] = sha256_file(_labelled(rule)) if rule else None
    return step(parts, product, "scrubbed", modules, config, [ledgered], work)


@dataclass(frozen=True)
class _Detect:
    """What a worker does with a batch of texts."""

    analyzer: PiiAnalyzer

    def __call__(self, texts: list[str]) -> list[list[Finding]]:
        return self.analyzer.find(texts, REPLACED)


def _found(parts: Parts, items: Iterable[Item]) -> Iterator[tuple[Item, str, list[Finding]]]:
    """Each item, its text, and what is replaced in it, found by the batch engine."""
    waiting: deque[tuple[list[Item], list[str]]] = deque()

    def batches() -> Iterator[list[str]]:
        for some in batched(items, BATCH_ROWS):
            texts = [_SEPARATOR.join(_texts(item.row)) for item in some]
            waiting.append((some, texts))
            yield texts

    for found in parts.engine.map(_Detect(parts.pii), batches()):
        yield from zip(*waiting.popleft(), found, strict=True)


def certificate_of(parts: Parts, rule: PiiRule) -> dict[str, Any]:
    """What the detector finds of the kinds that are replaced here, as figures. Raises `Refused` when it finds too
    little."""
    measured = certify(read_labelled(_labelled(rule)), parts.pii, REPLACED)
    require(measured, rule)
    return measured.payload()


def _labelled(rule: PiiRule) -> Path:
    path = ROOT / rule.labelled
    if not path.is_file():
        raise BadInput(f"the data policy's labelled text is not at {path}: correct pii.labelled")
    return path


def _operators(parts: Parts, ledgered: DatasetManifest) -> dict[Digest, Operator]:
    """What each contract has in place of personal data."""
    contracts = {source.contract for source in ledgered.sources}
    return {each: Operator(parts.store.get_manifest(each, DataContract).terms.scrub or "replace") for each in contracts}


def _keys(parts: Parts, hashed: list[str]) -> dict[str, bytes]:
    """For the values of these subjects: a hash is the same in all rows of a subject, and tells nothing once its key is
    erased."""
    return {subject: keyed_ref(key, "scrub").encode() for subject, key in parts.keyring.known(hashed).items()}


def scrub(
    row: Row, values: dict[str, str], operator: Operator = Operator.REPLACE, key: bytes = b"", seed: str = ""
) -> Row:
    """The row with every value (original -> kind) replaced wherever it stands as a word of its own. With a ``seed`` a
    made-up value is drawn by that and the original, so that it is the same in several rows."""
    if not values:
        return row
    replacements = _seeded(row, values, seed) if seed else _replacements(row, values, operator, key)
    pattern = re.compile("|".join(_word(value) for value in sorted(replacements, key=len, reverse=True)))

    def replace(text: str) -> str:
        return pattern.sub(lambda match: replacements[match[0]], text)

    def through(value: Any) -> Any:
        return _each_text(value, replace)

    if row["kind"] == "sft":
        messages = [message | {"content": through(message["content"])} for message in row["example"]["messages"]]
        return row | {"example": row["example"] | {"messages": messages}}
    pair = row["pair"]
    prompt = [message | {"content": through(message["content"])} for message in pair["prompt"]]
    answers = {side: through(pair[side]) for side in ("chosen", "rejected")}
    return row | {"pair": pair | {"prompt": prompt} | answers}


def _replacements(row: Row, values: dict[str, str], operator: Operator, key: bytes) -> dict[str, str]:
    """Original -> stand-in. Which made-up one is drawn by the row's content: the same in every installation, unlike
    between rows, and never one that the row holds already."""
    start = int(hex_of(content_of(row))[:8], 16)
    held = _SEPARATOR.join(_texts(row))
    replace = operator is Operator.REPLACE
    chosen = assign(values, held.casefold(), start) if replace else made(operator, values, held, key)
    for value, kind in values.items():
        inner = _argument_in(value, row) if kind in _LOOSE else None
        if inner:
            chosen[inner] = chosen[value]
    return chosen


def _seeded(row: Row, values: dict[str, str], seed: str) -> dict[str, str]:
    held = _SEPARATOR.join(_texts(row)).casefold()
    chosen: dict[str, str] = {}
    for value, kind in sorted(values.items()):
        start = int(hex_of(sha256_bytes(f"{seed}{value.casefold()}".encode()))[:8], 16)
        chosen |= assign({value: kind}, _SEPARATOR.join([held, *chosen.values()]).casefold(), start)
    return chosen


def personal(row: Row, analyzer: PiiAnalyzer) -> dict[str, str]:
    """What the line replaces in a row: original -> kind."""
    text = _SEPARATOR.join(_texts(row))
    (findings,) = analyzer.find([text], REPLACED)
    return _values(text, findings)


def _argument_in(value: str, row: Row) -> str | None:
    """A tool's argument that is part of a finding. The language model's findings have loose ends ("Stop Diamond"); text
    and argument then get one stand-in, so that the argument still stands in the text."""
    if row["kind"] != "sft":
        return None
    answer = _answer(row["example"]["messages"][-1]["content"])
    arguments = _leaves(answer.get("arguments")) if isinstance(answer, dict) else ()
    return next((each for each in arguments if each != value and re.search(_word(each), value)), None)


def _word(value: str) -> str:
    return rf"(?<!\w){re.escape(value)}(?!\w)"


def _values(text: str, findings: list[Finding]) -> dict[str, str]:
    values: dict[str, str] = {}
    for finding in findings:
        value = text[finding.start : finding.end].strip()
        if value:
            values.setdefault(value, finding.kind)
    return values


def _texts(row: Row) -> Iterator[str]:
    """Every text of a row that may hold personal data; of a JSON answer its values."""
    if row["kind"] == "sft":
        contents = [message["content"] for message in row["example"]["messages"]]
    else:
        contents = [message["content"] for message in row["pair"]["prompt"]]
        contents += [row["pair"]["chosen"], row["pair"]["rejected"]]
    for text in contents:
        yield from _leaves(_answer(text))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            if key != "tool":
                yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)


def _answer(text: str) -> Any:
    """The JSON object that an answer is, or the text itself."""
    try:
        value = json.loads(text) if text.startswith("{") else text
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def _each_text(text: str, replace: Callable[[str], str]) -> str:
    """Replace inside a JSON answer's values, so that it stays JSON; otherwise in the text."""
    value = _answer(text)
    if isinstance(value, str):
        return replace(text)
    changed = _walk(value, replace)
    return text if changed == value else json.dumps(changed, ensure_ascii=False)


def _walk(value: Any, replace: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, dict):
        return {key: each if key == "tool" else _walk(each, replace) for key, each in value.items()}
    return [_walk(each, replace) for each in value] if isinstance(value, list) else value
