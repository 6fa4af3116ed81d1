"""A split as a file for a trainer, who deletes it afterwards: erasure must reach every copy."""

import json
from pathlib import Path

from data_contracts.digests import Digest
from data_contracts.errors import BadInput
from data_contracts.manifests import DatasetManifest
from pipelines.stages.data.protocols import ROWS_LOCK
from pipelines.stages.data.rows import load
from pipelines.stages.protocols import Parts


def write_training_file(parts: Parts, manifest: DatasetManifest, split: str, path: Path) -> list[Digest]:
    """Write the verified rows of a split as JSON lines (``ChatExample`` or ``PreferencePair``), in the order of their
    content; their names. The file has mode 0600."""
    if split not in manifest.parts:
        raise BadInput(f"{manifest.stage} of {manifest.product} has no split {split!r}: {', '.join(manifest.parts)}")
    path.touch(mode=0o600)
    names: list[Digest] = []
    with parts.locks.hold(ROWS_LOCK), path.open("w", encoding="utf-8") as handle:
        for item in load(parts, manifest):
            if item.row["split"] == split:
                body = item.row["example"] if item.row["kind"] == "sft" else item.row["pair"]
                handle.write(json.dumps(body, ensure_ascii=False) + "\n")
                names.append(item.name)
    return names
