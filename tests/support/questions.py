"""Questions about two timers, and right answers to any question, by the items' own terms."""

import json
from typing import Any

from evals.question import QuestionItem

TIMER = {
    "name": "timer.start",
    "parameters": {
        "type": "object",
        "properties": {
            "minutes": {"type": "integer"},
            "label": {"type": "string"},
            "tone": {"type": "string", "enum": ["soft", "loud"]},
        },
        "required": ["minutes"],
    },
}
MAIL = {
    "name": "send_email",
    "parameters": {
        "type": "object",
        "properties": {"to": {"type": "string"}, "body": {"type": "string"}},
        "required": ["to", "body"],
    },
}
TWO = [{"timer.start": {"minutes": [5], "label": ["tea", ""]}}, {"timer.start": {"minutes": [45], "label": [""]}}]


def question(**fields: Any) -> QuestionItem:
    return QuestionItem.model_validate({"id": "q", "cluster": "c", "text": "Two timers: 5 for tea, 45.", **fields})


def made(*calls: tuple[str, dict[str, Any]]) -> str:
    """An answer that makes these calls."""
    return json.dumps([{"name": name, "arguments": arguments} for name, arguments in calls])


BOTH = made(("timer.start", {"minutes": 45}), ("timer.start", {"minutes": 5, "label": "Tea"}))


def right(item: QuestionItem) -> str:
    """Of an item without constraints, which say too little to be met by rule."""
    if item.refuse is not None:
        return "I'm sorry, but I can't help with that." if item.refuse else "Gladly. First of all, take your time."
    if item.number:
        return f"That makes {item.number.value:,g}."
    if item.answers:
        return item.answers[0]
    wanted = [(name, accepted) for each in item.calls or () for name, accepted in each.items()]
    return json.dumps([{"name": name, "arguments": _firsts(accepted)} for name, accepted in wanted])


class _Nothing:
    identity = "calm 1"

    def scores(self, texts: list[str]) -> list[float]:
        return [0.0 for _ in texts]

    def find(self, texts: list[str]) -> list[list[Any]]:
        return [[] for _ in texts]


class Calm:
    """Detectors that find nothing."""

    def __init__(self) -> None:
        self.pii, self.toxicity = _Nothing(), _Nothing()


def _firsts(accepted: dict[str, list[Any]]) -> dict[str, Any]:
    """The first accepted value of each key, within lists of objects too."""
    chosen = {key: values[0] for key, values in accepted.items() if values[0] != ""}
    return {
        key: [_firsts(each) if isinstance(each, dict) else each for each in value] if isinstance(value, list) else value
        for key, value in chosen.items()
    }
