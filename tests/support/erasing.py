"""A small line to erase from: a source with a person in it, two releases of which one learned from the person's rows,
and what a crash may leave on disk. ``python -m tests.support.erasing FOLDER SUBJECT`` erases there, to be killed."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from data_contracts.chain import live_releases
from data_contracts.digests import Digest, hex_of, sha256_bytes
from data_contracts.manifests import DatasetManifest, ReleaseManifest
from data_contracts.verdicts import ErasureReceipt, EvalResult, ItemScore
from evals.protocols import Kept
from pipelines.recipes.product import Product
from pipelines.settings import Settings
from pipelines.stages.data.ingest import pseudonym
from pipelines.stages.release.verify import verify
from pipelines.stages.serve.routes import read_routes
from pipelines.stages.signals.erasure import erase
from pipelines.stages.signals.erasure_receipts import listed
from pipelines.wiring import Line
from tests.support.data import QuickAnalyzer, run_line, write_contract
from tests.support.line import FakeServer, SmallLine
from tests.support.pieces import NAME
from tests.support.registry import FakeRegistry
from tests.support.search import traces_of
from tests.support.serving import FakeMerged

PERSON = "C-10442"
MARK = "quuxfrobnitz"
"""A word that only this person's rows hold."""
REASON = "request 2026-118"
PEOPLE = 6


class KeptRegistry(FakeRegistry):
    """A registry in a file, read and replaced at every call: two processes use it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def register(self, *args: Any, **named: Any) -> str:
        self._read()
        version = super().register(*args, **named)
        self._keep()
        return version

    def alias(self, product: str, name: str) -> Digest | None:
        self._read()
        return super().alias(product, name)

    def set_alias(self, product: str, name: str, release: Digest | None) -> None:
        self._read()
        super().set_alias(product, name, release)
        self._keep()

    def _read(self) -> None:
        if self.path.exists():
            known = json.loads(self.path.read_text())
            self.versions = {(product, release): set() for product, release in known["versions"]}
            self.aliases = {(product, name): release for product, name, release in known["aliases"]}

    def _keep(self) -> None:
        aliases = [[*key, release] for key, release in self.aliases.items()]
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({"versions": list(self.versions), "aliases": aliases}))
        part.replace(self.path)


class ErasingLine(SmallLine):
    """``clean`` was live before ``tainted``, which learned from the person's rows and is live."""

    def __init__(self, folder: Path, name: str = NAME) -> None:
        super().__init__(folder, name)
        self.write_source(with_person=False)
        self.data = self.run_data()
        self.clean = self.live(seed=0)
        self.write_source(with_person=True)
        self.data = self.run_data()
        self.tainted = self.live(seed=1, champion=self.model_of(self.clean))
        self.samples = self.evaluated(self.tainted)
        self.subject = pseudonym(self.parts, PERSON)

    def _open(self) -> None:
        super()._open()
        self.registry = KeptRegistry(self.folder / "registry.json")
        self.parts.__dict__.update(registry=self.registry, pii=QuickAnalyzer())

    def write_source(self, with_person: bool) -> None:
        """Rows of six people; the person has a row that is learned from, a copy of it, and one that breaks the
        contract."""
        rows = [
            {"customer": f"C-{n % PEOPLE}", "text": " ".join(f"word{n * k}" for k in (1, 3, 5, 7, 9)), "intent": "a"}
            for n in range(1, 25)
        ]
        if with_person:
            mine = {"customer": PERSON, "text": f"my {MARK} is broken since June, m.keller@example.org", "intent": "b"}
            rows += [mine, mine | {"text": mine["text"] + "!"}, mine | {"intent": None}]
            rows += [mine | {"text": f"{MARK} {n} {n * 7} {n * 13} again" * n} for n in range(2, 9)]
        source = self.folder / "source.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        columns = {"customer": "string", "text": "string", "intent": "string"}
        contract = write_contract(self.folder / "rows.yaml", columns, subjectKey="customer")
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
        (self.folder / "policy.yaml").write_text(yaml.safe_dump(policy))
        path = self.folder / "products" / f"{self.product.name}.yaml"
        mapping = {"user": "{text}", "assistant": {"intent": "{intent}"}}
        product = yaml.safe_load(path.read_text()) | {
            "sources": [{"url": str(source), "contract": contract, "mapping": mapping}],
            "data_policy": str(self.folder / "policy.yaml"),
        }
        path.write_text(yaml.safe_dump(product))
        self.product = self.parts.product(self.product.name)

    def run_data(self) -> dict[str, tuple[DatasetManifest, bool]]:
        done = run_line(self.parts, self.product)
        self.raw, self.splits = done["raw"][0], done["splits"][0]
        return done

    def evaluated(self, release: ReleaseManifest) -> Digest:
        """A remembered evaluation of a release whose model said the person's word."""
        store = self.parts.store
        result = EvalResult(
            product=self.product.name,
            suite="small-suite",
            suite_digest=sha256_bytes(b"suite"),
            artifact=release.weights,
            template=release.template,
            decoding=sha256_bytes(b"greedy"),
            engine="none",
            items=(ItemScore(item="i", cluster="c", scores={"exact": 1.0}),),
            samples=store.put_json({"i": f"your {MARK}"}),
            action_key=sha256_bytes(b"evaluated"),
        )
        store.put_action(result.action_key, store.put_manifest(result))
        self.parts.answers.put(release.weights, {sha256_bytes(b"asked"): Kept(f"your {MARK}", "none")})
        assert result.samples is not None
        return result.samples

    def leave_behind(self) -> Path:
        """What killed processes leave: a torn shard, exported rows with and without a job, a source's copy. Returns the
        training run that has nothing to do with the person."""
        home = self.parts.home
        row = next(item.row for item in self.parts.datasets.read(self.splits.root) if item.subject == self.subject)
        torn = home / "rows" / hex_of(sha256_bytes(b"torn"))
        torn.mkdir()
        shard = home / "rows" / hex_of(self.splits.root) / "rows-00000.parquet"
        (torn / "rows-00000.parquet").write_bytes(shard.read_bytes())
        (torn / ".rows-00001.parquet.0.part").write_text(json.dumps(row))
        (home / "rows" / ".0.part").mkdir()
        (home / "rows" / ".0.part" / "rows-00000.parquet").write_bytes(shard.read_bytes())
        (home / "fetched" / self.product.name / "0").mkdir(parents=True)
        (home / "fetched" / self.product.name / "0" / "source.jsonl").write_text(MARK)
        names = [name for name, who in self.parts.datasets.names(self.splits.root) if who == self.subject]
        others = [name for name, who in self.parts.datasets.names(self.splits.root) if who != self.subject]
        for run, job in (("1" * 64, names), ("2" * 64, None), ("3" * 64, others)):
            rows = home / "training" / run / "rows"
            rows.mkdir(parents=True)
            (rows / "train.jsonl").write_text("nothing of it" if job is others else json.dumps(row))
            if job is not None:
                (rows.parent / "job.json").write_text(json.dumps({"row_names": {"train": job}}))
        return home / "training" / ("3" * 64)

    def erase(self) -> tuple[ErasureReceipt, bool]:
        return erase(self.parts, [self.product], self.subject, REASON, lambda product: [30.0, 50.0])


def champion(line: ErasingLine) -> str | None:
    return live_releases(line.parts.log.records()).get((NAME, "production"))


def events(line: ErasingLine) -> list[str]:
    return [record.event for record in line.parts.log.records()]


def erased_whole(line: ErasingLine) -> None:
    """Nothing is left of the person, the rest stands, and each act is recorded once."""
    home = line.parts.home
    assert traces_of(home, MARK) == []
    assert traces_of(home, PERSON) == []
    links = verify(line.parts, line.tainted.digest, line.parts.signatures)
    assert [link for link in links if link.status == "broken"] == []
    assert {link.name.split()[2] for link in links if link.status == "erased"} == set(line.data)
    assert {link.status for link in verify(line.parts, line.clean.digest, line.parts.signatures)} == {"ok"}
    assert champion(line) == line.clean.digest == line.parts.registry.alias(NAME, "champion")
    route = read_routes(home).of(NAME)
    assert route is not None
    assert (route.champion, route.previous, route.challenger) == (line.clean.digest, None, None)
    for event in ("erasure.begun", "release.revoked", "retrain.proposed", "erasure.completed"):
        assert events(line).count(event) == 1, event
    (found,) = listed(line.parts)
    assert found.state == "erased"


def opened(folder: Path) -> tuple[Line, Product]:
    """The line of that folder, in a process that did not make it."""
    parts = Line(
        Settings(home=folder / "home", trust_root=folder / "trust" / "allowed_signers", products=folder / "products")
    )
    registry = KeptRegistry(folder / "registry.json")
    parts.__dict__.update(server=FakeServer(), merged=FakeMerged(), registry=registry, pii=QuickAnalyzer())
    return parts, parts.product(NAME)


if __name__ == "__main__":
    parts, product = opened(Path(sys.argv[1]))
    for part in (parts.datasets, parts.keyring, parts.ledger, parts.log, parts.store):
        assert part is not None
    import pandas  # noqa: F401  # pyarrow imports it at its first array

    print("ready", flush=True)
    erase(parts, [product], sys.argv[2], REASON, lambda name: [30.0, 50.0])
    print("done", flush=True)
