"""The ML-BOM of a model: a CycloneDX 1.6 document (ECMA-424) of what it was made from, and how it was judged.

It names things by their digests and holds no time, host or row text. Its serial number comes from the model and its
verdict, so that equal manifests give equal bytes.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pydantic import JsonValue

from data_contracts.contract import DataContract, spdx
from data_contracts.digests import Digest, hex_of
from data_contracts.manifests import BaseManifest, CheckpointManifest, DatasetManifest, ModelManifest
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import CriterionResult, EvalResult, GateVerdict
from evals.policy import GatePolicy
from evals.report import measures
from pipelines.recipes.product import Product
from pipelines.stages.release.lineage import checkpoints, datasets, training_sets
from pipelines.stages.release.origins import learned_from, licence_of
from pipelines.stages.release.uses import direct_use, limits, out_of_scope

LIBRARIES = (
    *("accelerate", "bitsandbytes", "datasets", "numpy", "peft", "safetensors", "tokenizers", "torch"),
    *("transformers", "trl"),
)
"""What of a captured environment is a package; the rest describes the machine."""
_TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens")
_APPROACH = {"grpo": "reinforcement-learning"}

Json = dict[str, Any]


def ml_bom(store: ArtifactStore, product: Product, model: ModelManifest, verdict: GateVerdict) -> dict[str, JsonValue]:
    """The document, as JSON."""
    base = store.get_manifest(model.base, BaseManifest)
    steps = checkpoints(store, model)
    heads = training_sets(model, steps)
    sets = datasets(store, heads)
    libraries = {
        name: version
        for step in steps
        for name, version in store.get_json(step.environment).items()
        if name in LIBRARIES
    }
    parts = {model.base: _base(store, base), f"{base.tree}/tokenizer": _tokenizer(store, base)}
    data = {digest: _data_set(store, digest, each) for digest, each in sets.items()}
    software = {_purl(name, version): _library(name, version) for name, version in sorted(libraries.items())}
    needed: Json = {model.digest: [*parts, *heads, *software]}
    needed |= {digest: list(each.inputs) for digest, each in sets.items() if each.inputs}
    subject = _model(store, product, model, base, [(head, sets[head]) for head in heads], steps)
    card = _card(store, product, model, base, verdict, heads, steps)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{model.digest} {verdict.digest}')}",
        "version": 1,
        "metadata": {"component": subject | {"modelCard": card}},
        "components": [*parts.values(), *data.values(), *software.values()],
        "dependencies": [{"ref": ref, "dependsOn": list(dict.fromkeys(of))} for ref, of in needed.items()],
    }


def _model(
    store: ArtifactStore,
    product: Product,
    model: ModelManifest,
    base: BaseManifest,
    heads: Sequence[tuple[Digest, DatasetManifest]],
    steps: Sequence[CheckpointManifest],
) -> Json:
    origins = [origin for _, each in heads for origin in learned_from(store, each)]
    told = {
        "weights": model.weights,
        "template": model.template,
        "recipe": model.recipe,
        "method": model.method,
        "synthetic_share": f"{model.synthetic_share:g}",
        **{f"checkpoint:{step.stage}": step.digest for step in steps},
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": model.digest,
        "name": product.name,
        "version": hex_of(model.digest),
        "description": product.description,
        "licenses": [{"license": {"name": licence_of(base, origins)}}],
        "components": _files(store, model.weights, lambda name: True),
        "properties": _properties(told),
    }


def _card(
    store: ArtifactStore,
    product: Product,
    model: ModelManifest,
    base: BaseManifest,
    verdict: GateVerdict,
    heads: Sequence[Digest],
    steps: Sequence[CheckpointManifest],
) -> Json:
    policy = store.get_manifest(verdict.policy, GatePolicy)
    results = {name: store.get_manifest(digest, EvalResult) for name, digest in verdict.results.items()}
    measured = measures(policy, results)
    means = [
        _metric(each.metric, each.suite, each.scores["candidate"].estimate, *each.scores["candidate"][1:])
        for each in measured
    ]
    effects = [
        _metric(f"{each.metric}, {_compared(each)}", each.suite, each.effect, each.ci_low, each.ci_high)
        for each in verdict.criteria
    ]
    return {
        "modelParameters": {
            "approach": {"type": _APPROACH.get(steps[0].stage, "supervised")},
            "task": "text-generation",
            **_architecture(store, base),
            "datasets": [{"ref": digest} for digest in heads],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": means + effects},
        "considerations": {
            "users": [f"tenant {product.tenant}"],
            "useCases": [direct_use(product)],
            "technicalLimitations": [*out_of_scope(store, product, model), *limits(model, verdict, measured)],
        },
        "properties": _properties(
            {"verdict": verdict.digest, "decision": verdict.decision, "confidence": f"{policy.confidence:g}"}
        ),
    }


def _compared(criterion: CriterionResult) -> str:
    return "ceiling minus candidate" if criterion.kind == "ceiling" else f"candidate minus {criterion.baseline}"


def _metric(name: str, suite: str, value: float, low: float, high: float) -> Json:
    bounds = {"lowerBound": f"{low:.4f}", "upperBound": f"{high:.4f}"}
    return {"type": name, "slice": suite, "value": f"{value:.4f}", "confidenceInterval": bounds}


def _architecture(store: ArtifactStore, base: BaseManifest) -> Json:
    """By the base's own configuration, where it tells."""
    config = json.loads((store.tree(base.tree) / "config.json").read_bytes())
    named = {"architectureFamily": config.get("model_type"), "modelArchitecture": config.get("architectures")}
    return {key: value if isinstance(value, str) else ", ".join(value) for key, value in named.items() if value}


def _base(store: ArtifactStore, base: BaseManifest) -> Json:
    return {
        "type": "machine-learning-model",
        "bom-ref": base.digest,
        "name": base.name,
        "version": hex_of(base.tree),
        "description": f"base model, {base.parameters} parameters, from {base.source}",
        "licenses": _licences([base.licence]),
        "components": _files(store, base.tree, lambda name: not _of_tokenizer(name)),
        "properties": _properties({"tree": base.tree, "source": base.source}),
    }


def _tokenizer(store: ArtifactStore, base: BaseManifest) -> Json:
    return {
        "type": "data",
        "bom-ref": f"{base.tree}/tokenizer",
        "name": f"{base.name} tokenizer",
        "version": hex_of(base.tree),
        "licenses": _licences([base.licence]),
        "data": [{"type": "configuration", "name": "tokenizer"}],
        "components": _files(store, base.tree, _of_tokenizer),
    }


def _of_tokenizer(name: str) -> bool:
    return name.startswith(_TOKENIZER)


def _data_set(store: ArtifactStore, digest: Digest, data: DatasetManifest) -> Json:
    """One step's data set. Its hash is that of its manifest, which names every row by the Merkle root."""
    origins = learned_from(store, data)
    contracts = {each.contract: store.get_manifest(each.contract, DataContract) for each in data.sources}
    owners = sorted({contract.owner() for contract in contracts.values()})
    dataset: Json = {"type": "dataset", "name": f"{data.product}-{data.stage}"}
    if owners:
        dataset["governance"] = {"owners": [{"contact": {"name": owner}} for owner in owners]}
    if sensitive := _replaced(data):
        dataset["sensitiveData"] = sensitive
    told = {
        "root": data.root,
        "rows": str(data.counts.rows_out),
        "synthetic_share": f"{data.synthetic_share:g}",
        **{f"source:{each.url}": each.content for each in data.sources},
    }
    return {
        "type": "data",
        "bom-ref": digest,
        "name": f"{data.product}-{data.stage}",
        "version": hex_of(data.root),
        "hashes": [{"alg": "SHA-256", "content": hex_of(digest)}],
        "licenses": _licences(sorted({origin.licence for origin in origins})),
        "data": [dataset],
        "properties": _properties(told),
    }


def _replaced(data: DatasetManifest) -> list[str]:
    found: Any = data.facts.get("entities", {})
    return [f"{kind}, replaced {count} times" for kind, count in sorted(found.items())]


def _library(name: str, version: str) -> Json:
    purl = _purl(name, version)
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{quote(version, safe='.')}"


def _files(store: ArtifactStore, tree: Digest, wanted: Callable[[str], bool]) -> list[Json]:
    listed: Mapping[str, Digest] = store.get_json(tree)
    return [
        {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": hex_of(digest)}]}
        for name, digest in sorted(listed.items())
        if wanted(name)
    ]


def _licences(licences: Sequence[str]) -> list[Json]:
    """One SPDX expression that all of it obeys, or the names where one is none."""
    if all(spdx(each) for each in licences):
        return [{"expression": " AND ".join(_grouped(licences))}] if licences else []
    return [{"license": {"name": each}} for each in licences]


def _grouped(licences: Iterable[str]) -> list[str]:
    return [f"({each})" if " " in each else each for each in licences]


def _properties(values: Mapping[str, str]) -> list[Json]:
    return [{"name": f"assay:{name}", "value": value} for name, value in sorted(values.items())]
