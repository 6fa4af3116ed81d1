"""What a release learned from, counted once: the tools and labels of its training rows."""

from collections import Counter
from datetime import UTC, datetime

from data_contracts.digests import Digest, sha256_json
from data_contracts.errors import Missing
from data_contracts.manifests import DatasetManifest, ModelManifest, ReleaseManifest
from data_contracts.records import NO_TOOL, ToolSpec
from data_contracts.traces import SealedWindow
from evals.answers import parse_answer
from pipelines.stages.data.item import Row
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.traces import Window

_SHAPE = sha256_json("what a release learned from")


def learned(parts: Parts, release: Digest) -> Window | None:
    """Counts of ``tool`` and, where rows have one, ``label``. ``None`` where its rows cannot be read any more."""
    known = parts.traces.sealed(release, _SHAPE, 1)
    if not known:
        try:
            made = _count(parts, release)
        except Missing:
            return None
        parts.traces.seal(release, _SHAPE, [made])
        known = [made]
    return Window(answers=known[0].answers, counts=known[0].counts)


def _count(parts: Parts, release: Digest) -> SealedWindow:
    model = parts.store.get_manifest(parts.store.get_manifest(release, ReleaseManifest).model, ModelManifest)
    tools: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    for digest in model.datasets:
        manifest = parts.store.get_manifest(digest, DatasetManifest)
        for item in parts.datasets.read(manifest.parts.get("train", manifest.root)):
            if "label" in item.row:
                labels[item.row["label"]] += 1
            if item.row["kind"] == "sft":
                tools[_tool(item.row)] += 1
    return SealedWindow(
        number=0,
        time=datetime.now(UTC),
        last="",
        answers=sum(tools.values()),
        counts={"tool": dict(sorted(tools.items())), "label": dict(sorted(labels.items()))},
    )


def _tool(row: Row) -> str:
    offered = [ToolSpec.model_validate(each) for each in row["example"]["tools"] or ()]
    answer = parse_answer(offered, row["example"]["messages"][-1]["content"])
    return answer.tool if answer and answer.tool else NO_TOOL
