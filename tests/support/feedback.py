"""What nobody said of answers that nobody gave."""

from datetime import timedelta

from data_contracts.feedback import Exchange, Feedback, Sealed
from tests.support.traces import PRODUCT, START, release


def make_exchange(name: str, second: float = 0, **changes: object) -> Exchange:
    """Of an answer that ended so many seconds after `START`."""
    values: dict[str, object] = {
        "trace_id": name,
        "time": START + timedelta(seconds=second),
        "tenant": "acme",
        "product": PRODUCT,
        "release": release("a"),
        "messages": [{"role": "user", "content": "when am I billed?"}],
        "answer": "on the 1st",
        "policy": release("policy"),
    }
    return Exchange.model_validate(values | changes)


def make_feedback(name: str, second: float = 0, **changes: object) -> Feedback:
    values: dict[str, object] = {
        "feedback_id": name,
        "trace_id": "chatcmpl-1",
        "time": START + timedelta(seconds=second),
        "tenant": "acme",
        "product": PRODUCT,
        "release": release("a"),
        "by": "user",
        "author": "somebody",
        "rating": "bad",
    }
    return Feedback.model_validate(values | changes)


def make_sealed(name: str, second: float = 0, **changes: object) -> Sealed:
    values: dict[str, object] = {
        "name": name,
        "time": START + timedelta(seconds=second),
        "tenant": "acme",
        "product": PRODUCT,
        "kind": "exchange",
        "data": "c2VhbGVk",
    }
    return Sealed.model_validate(values | changes)
