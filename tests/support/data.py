"""A data line on small sources, with an analyzer that finds e-mail addresses and one name in no time."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from data_contracts.digests import canonical_json, sha256_bytes
from data_contracts.ledger import Origin
from data_contracts.manifests import DatasetManifest
from data_contracts.policy import load_policy
from pipelines.recipes.product import ROOT, Product, load_product
from pipelines.stages.data import steps
from pipelines.stages.data.certificate import read_labelled
from pipelines.stages.data.item import Item, Row
from pipelines.stages.data.protocols import BatchEngine, Embedder, Finding
from resources.answer_store import SqliteAnswers
from resources.artifact_store import FsspecArtifactStore
from resources.audit_log import FileAuditLog
from resources.batch_engine import LocalBatchEngine
from resources.dataset_store import ParquetDatasetStore
from resources.feedback import SqlFeedback, open_feedback
from resources.keyring import SqliteKeyring
from resources.ledger import SqlLedger, open_ledger
from resources.locks import FileLocks
from resources.tenant_keys import TenantKeys

ORIGIN = Origin(
    source="s",
    source_digest=sha256_bytes(b""),
    contract=sha256_bytes(b""),
    licence="CC0-1.0",
    consent="consent",
    purposes=("own-model",),
    retain_until=date(2031, 1, 1),
    tier="gold",
)


def item(row: Row, subject: str = "somebody", origin: Origin = ORIGIN) -> Item:
    """A row under a name that anybody can give it."""
    text = canonical_json(row).decode()
    return Item(sha256_bytes(text.encode()), subject, origin, text)


@cache
def by_heart() -> dict[str, list[Finding]]:
    """The labelled text that the demo's data policy holds the detector against."""
    rule = load_policy(billing().file("data_policy", billing().data_policy)).pii
    return {each.text: list(each.spans) for each in read_labelled(ROOT / rule.labelled)} if rule else {}


class QuickAnalyzer:
    """Finds e-mail addresses and one name, and knows the labelled text by heart."""

    identity = "quick"
    calls = 0

    def find(self, texts: Sequence[str], least: Mapping[str, float] | None = None) -> list[list[Finding]]:
        self.calls += 1
        pattern = re.compile(r"(?P<EMAIL_ADDRESS>[\w.]+@[\w.]+\w)|(?P<PERSON>Maria Keller)")
        return [
            by_heart().get(text) or [Finding(m.start(), m.end(), str(m.lastgroup)) for m in pattern.finditer(text)]
            for text in texts
        ]


class RudeWords:
    identity = "rude"
    known_biases = "It knows one word."

    def scores(self, texts: Sequence[str]) -> list[float]:
        return [float("idiot" in text) for text in texts]


class Babel:
    """Takes everything for English that does not say it is German."""

    identity = "babel"
    languages = frozenset({"de", "en"})

    def language(self, text: str) -> str | None:
        return None if not text else "de" if "bitte" in text else "en"


class NoEmbedder:
    """For products that do not ask for meaning."""

    identity = "none"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        raise AssertionError("nobody asked for meaning")


class DataParts:
    """The adapters that data steps use; everything else is absent."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.pii = QuickAnalyzer()
        self.toxicity = RudeWords()
        self.embedder: Embedder = NoEmbedder()
        self.language = Babel()
        self.engine: BatchEngine = LocalBatchEngine()

    @cached_property
    def store(self) -> FsspecArtifactStore:
        return FsspecArtifactStore(str(self.home / "store"), self.home / "cache", self.tenant_keys)

    @cached_property
    def tenant_keys(self) -> TenantKeys:
        return TenantKeys(self.home / "vault" / "tenants")

    @cached_property
    def locks(self) -> FileLocks:
        return FileLocks(self.home / "locks")

    @cached_property
    def datasets(self) -> ParquetDatasetStore:
        return ParquetDatasetStore(self.home / "rows")

    @cached_property
    def keyring(self) -> SqliteKeyring:
        return SqliteKeyring(self.home / "vault" / "keys.sqlite")

    @cached_property
    def ledger(self) -> SqlLedger:
        return open_ledger("", self.home / "ledger.sqlite")

    @cached_property
    def log(self) -> FileAuditLog:
        log = FileAuditLog(self.home / "chain", self.home / "keys" / "log_ed25519")
        log.signer_line()
        return log

    @cached_property
    def feedback(self) -> SqlFeedback:
        return open_feedback("", self.home / "feedback.sqlite", self.home / "feedback-spool")

    @cached_property
    def answers(self) -> SqliteAnswers:
        return SqliteAnswers(self.home / "answers.sqlite")


STAGES = ("raw", "contracted", "ledgered", "scrubbed", "deduplicated", "decontaminated", "mixture", "splits")


def run_line(parts: Any, product: Product) -> dict[str, tuple[DatasetManifest, bool]]:
    """Every step up to the splits, by name."""
    done: dict[str, tuple[DatasetManifest, bool]] = {}
    inputs: list[DatasetManifest] = []
    for name in STAGES:
        done[name] = getattr(steps, name)(parts, product, *inputs)
        inputs = [done[name][0]]
    return done


def billing() -> Product:
    return load_product("billing-assistant")


def write_contract(path: Path, columns: dict[str, str], **terms: object) -> str:
    """A contract over these columns (name -> logical type, all required); ``terms`` become customProperties."""
    stated: dict[str, object] = {
        "licence": "CC-BY-4.0",
        "consent": "public-licence",
        "purposes": ["own-model"],
        "tier": "gold",
        "syntheticDepth": 0,
    } | terms
    contract = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": path.stem,
        "version": "1.0.0",
        "status": "active",
        "team": {"members": [{"username": "owner"}]},
        "schema": [
            {
                "name": "rows",
                "properties": [{"name": n, "logicalType": kind, "required": True} for n, kind in columns.items()],
            }
        ],
        "customProperties": [{"property": key, "value": value} for key, value in stated.items()],
    }
    path.write_text(yaml.safe_dump(contract))
    return str(path)


def product_of(folder: Path, *sources: dict[str, object], **fields: object) -> Product:
    """The billing product with other sources, as a product file in ``folder``."""
    policy = {
        "name": "test",
        "purposes": {
            "own-model": {
                "licences": ["CC-BY-4.0"],
                "consent": ["public-licence"],
                "human_floor": 1.0,
                "max_synthetic_depth": 0,
            }
        },
    }
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    values = billing().payload() | {
        "name": "other",
        "sources": list(sources),
        "mixture": {},
        "data_policy": str(folder / "policy.yaml"),
        **fields,
    }
    path = folder / "other.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(values))))
    return load_product(str(path))


def simple_rows(count: int) -> list[dict[str, str]]:
    """Questions that are no copies of one another, and their intents."""
    return [
        {"text": " ".join(f"word{number * step}" for step in (1, 3, 5, 7, 9)) + "?", "intent": f"intent {number % 4}"}
        for number in range(1, count + 1)
    ]
