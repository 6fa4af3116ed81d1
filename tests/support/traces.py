"""Traces that nobody asked for."""

from datetime import UTC, datetime, timedelta

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.traces import ShadowTrace, Trace

START = datetime(2026, 1, 1, tzinfo=UTC)
PRODUCT = "billing"


def release(seed: str) -> Digest:
    return sha256_bytes(seed.encode())


def make_trace(name: str, second: float = 0, **changes: object) -> Trace:
    """Of an answer that ended so many seconds after `START`."""
    values: dict[str, object] = {
        "trace_id": name,
        "time": START + timedelta(seconds=second),
        "tenant": "acme",
        "product": PRODUCT,
        "route": "champion",
        "release": release("a"),
        "base": release("base"),
        "adapter": release("adapter"),
        "template": release("template"),
        "status": 200,
        "prompt_chars": 30,
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "latency_ms": 12.5,
        "json_valid": True,
    }
    return Trace.model_validate(values | changes)


def make_shadow(name: str, second: float = 0, **changes: object) -> ShadowTrace:
    values: dict[str, object] = {
        "trace_id": name,
        "time": START + timedelta(seconds=second),
        "product": PRODUCT,
        "live": release("a"),
        "shadow": release("b"),
        "status": 200,
        "equal": True,
        "live_json_valid": True,
        "json_valid": True,
        "live_ms": 10.5,
        "ms": 11.25,
    }
    return ShadowTrace.model_validate(values | changes)
