"""Records of training runs for tests."""

from datetime import UTC, datetime
from typing import Any

from data_contracts.digests import sha256_bytes
from data_contracts.runs import RunRecord

STARTED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_record(run: str, **changes: Any) -> RunRecord:
    """A run of six steps of two rows; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "run": run,
        "product": "test-product",
        "stage": "sft",
        "outcome": "done",
        "steps": 6,
        "rows_a_step": 2,
        "action_key": sha256_bytes(b"work"),
        "recipe": sha256_bytes(b"recipe"),
        "base": sha256_bytes(b"base"),
        "data": sha256_bytes(b"data"),
        "hyperparameters": {"method": "lora", "lora": {"rank": 16}, "precision": "fp32", "max_length": 512},
        "commit": "none",
        "host": "here",
        "started": STARTED,
    }
    return RunRecord.model_validate(fields | changes)
