"""The data line, step by step. Each takes the manifest before it and returns (manifest, hit)."""

from pipelines.stages.data.decontaminate import decontaminated
from pipelines.stages.data.deduplicate import deduplicated
from pipelines.stages.data.ingest import contracted, ledgered, raw
from pipelines.stages.data.mix import mixture
from pipelines.stages.data.scrub import scrubbed
from pipelines.stages.data.split import preferences, splits

__all__ = [
    "contracted",
    "decontaminated",
    "deduplicated",
    "ledgered",
    "mixture",
    "preferences",
    "raw",
    "scrubbed",
    "splits",
]
