"""An approved release of the tiny base with an adapter that speaks up, and with scores that it really reached."""

import json
from pathlib import Path

import yaml

from data_contracts.digests import Digest
from data_contracts.manifests import BaseManifest, ReleaseManifest
from data_contracts.verdicts import EvalResult, ItemScore, LayerResults
from evals.decoding import as_served, template_text
from evals.gate import decide
from evals.kept import Respondent
from evals.protocols import Question
from evals.question import QuestionItem
from evals.run import Way, evaluate
from evals.suite import load_suites
from pipelines.stages.release.candidate import register
from pipelines.stages.release.export import Source
from resources.local_model import LocalModel
from tests.support.adapters import write_adapter
from tests.support.line import REPORT, SmallLine
from tests.support.pieces import NAME
from tests.support.tiny import make_tiny_base

MERGES = (("i", "n"), ("Ġ", "t"), ("in", "g"), ("Ġt", "h"), ("1", "2"))
ITEMS = 20


class ExportLine:
    """``line`` with its ``release``. Three in four items of its suite want what the release answers, one something
    else."""

    def __init__(self, folder: Path) -> None:
        self.line = line = SmallLine(folder)
        product = folder / "products" / f"{NAME}.yaml"
        values = yaml.safe_load(product.read_text())
        product.write_text(yaml.safe_dump(values | {"serving": {"max_tokens": 1, "canary": {"requests": 4}}}))
        line.product = line.parts.product(NAME)
        store = line.parts.store
        tree = store.put_tree(make_tiny_base(folder / "tiny", merges=MERGES))
        line.base = BaseManifest(name="tiny", source="folder", licence="CC0-1.0", tree=tree, parameters=200_000)
        store.put_manifest(line.base)
        self.adapter = write_adapter(store.tree(tree), line.base.digest, folder / "adapter", seed=3, scale=4.0)
        asked = LocalModel(store.tree(tree), self.adapter)
        template = line.product.file("template", line.product.template).read_text()
        self._write_suite(folder, asked, template)
        (suite,) = load_suites(line.product)
        model = line.candidate(adapter=self.adapter)
        way = Way(template_text(store, line.product, model.template), as_served(line.product))
        who = Respondent(model.weights, line.base.digest, LocalModel.lock(), lambda: asked)
        reached, _ = evaluate(line.parts, suite, who, way, lambda done, total: None, NAME)
        results = {f"{suite.name}/candidate": reached.digest, f"{suite.name}/base": self._nothing(reached)}
        layer = LayerResults(product=NAME, model=model.digest, layer="product", results=results)
        verdict = decide(line.parts, line.product, model, [layer])[0]
        self.release: ReleaseManifest = register(line.parts, line.product, model, verdict, REPORT)[0]
        line.approve(self.release)

    def source(self) -> Source:
        store = self.line.parts.store
        template = store.get_bytes(self.release.template).decode()
        base = store.tree(self.line.base.tree)
        return Source(base, self.adapter, False, template, NAME, self.release.digest)

    def _write_suite(self, folder: Path, asked: LocalModel, template: str) -> None:
        """Of many questions those on whose first token the model is surest, so that rounding does not change it."""
        texts = [f"Invoice {n}{n}: what is owing on the {n}th?" for n in range(5 * ITEMS)]
        items = [QuestionItem(id=f"q{n}", cluster=f"c{n}", text=text, answers=("-",)) for n, text in enumerate(texts)]
        questions = {item: as_served(self.line.product).question(template, item) for item in items}
        sure = {item: _first(asked, question) for item, question in questions.items()}
        best = sorted(items, key=lambda item: -sure[item][0])[:ITEMS]
        answers = [sure[item][1] if number % 4 else "something else" for number, item in enumerate(best)]
        rows = [
            item.model_copy(update={"answers": (each,)}).payload() for item, each in zip(best, answers, strict=True)
        ]
        (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        suite = yaml.safe_load((folder / "suite.yaml").read_text())
        (folder / "suite.yaml").write_text(yaml.safe_dump(suite | {"asks": "questions"}))

    def _nothing(self, reached: EvalResult) -> Digest:
        """The base, which scores nothing."""
        items = tuple(ItemScore(item=each.item, cluster=each.cluster, scores={"exact": 0.0}) for each in reached.items)
        change = {"artifact": self.line.base.digest, "items": items, "samples": None}
        return self.line.parts.store.put_manifest(reached.model_copy(update=change))


def _first(model: LocalModel, question: Question) -> tuple[float, str]:
    """By how much the best first token is better than the next, and its text."""
    import torch

    tokens = model._tokenizer(model._prompt(question), add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        best = model._model(**tokens).logits[0, -1].float().topk(2)
    return float(best.values[0] - best.values[1]), model._tokenizer.decode(best.indices[:1], skip_special_tokens=True)
