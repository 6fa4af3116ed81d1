"""Generated rows: the demo product's, and canaries for any product. Synthetic, labelled so, the same bytes on every
machine. Some of the demo's are planted to fail a gate.

A row has its own licence and consent basis, as the contract says; ``template`` names the sentences it was made from.
"""

import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from data_contracts.errors import BadInput
from evals.answers import call, words
from evals.suite import tool_catalogue
from pipelines.recipes.product import Planted
from pipelines.stages.data.canaries import canary_rows
from pipelines.stages.data.substitutes import substitute

_SEED = 20240
_PHRASES = Path(__file__).with_name("phrases.yaml")
Row = dict[str, Any]

FAMILIES = 22
"""Each tool is asked for in so many ways; the other questions are dealt to the same families."""
KINDS = {"call": 54, "not_offered": 10, "off_topic": 12, "questions": 11, "refused": 13}
"""What a customer wants, and how often in a hundred times."""

GOLDEN = "Just off a night shift and trying to sort my paperwork. Could you pull up INV-2207 for me?"
"""An item of the suite billing-tools, planted so that decontamination has work."""


def generated(name: str) -> bytes:
    """JSON lines of ``billing-conversations``, ``billing-preferences`` or ``canaries?count=N&seed=NAME``."""
    makers: dict[str, Callable[[], Iterator[Row]]] = {
        "billing-conversations": _conversations,
        "billing-preferences": _preferences,
    }
    if planted := Planted.by(f"generated://{name}"):
        makers[name] = lambda: canary_rows(planted)
    if name not in makers:
        raise BadInput(f"source generated://{name}: known names are {', '.join(makers)}, canaries?count=8&seed=NAME")
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in makers[name]()).encode()


@cache
def phrases() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(_PHRASES.read_text(encoding="utf-8"))
    return loaded


def _conversations() -> Iterator[Row]:
    """Two exchanges a row under one list of tools: what is read of the list then teaches twice. All sentences of a
    row are of one family, and no family stands on both sides of the split."""
    chance = random.Random(_SEED)
    rows = [_talk(chance, number) for number in range(500)]
    yield from rows
    yield from _planted(rows)


def _talk(chance: random.Random, number: int) -> Row:
    family, tools, person = number % FAMILIES, _offer(chance), _slots(chance)
    turns: dict[str, tuple[str, str]] = {}
    while len(turns) < 2:
        slots = _slots(chance) | {name: person[name] for name in ("name", "email", "phone", "city")}
        question, answer = _exchange(chance, family, tools, slots)
        turns[question] = (_wrap(chance, slots, _fill(question, slots), opening=not turns), answer)
    return _chat(f"c{number:04}", f"family-{family}", list(turns.values()), tools)


def _exchange(chance: random.Random, family: int, tools: list[str], slots: dict[str, str]) -> tuple[str, str]:
    """A question of this family, its slots still open, and its answer: a call, or words and why no call."""
    said = phrases()
    kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
    if kind == "call":
        tool = chance.choice(tools)
        return said["tools"][tool][family], _json_call(tool, slots)
    if kind == "not_offered":
        tool = chance.choice([each for each in said["tools"] if each not in tools])
        return said["tools"][tool][family], words(chance.choice(said["replies"]["not_offered"]))
    picked = chance.choice(said[kind][family::FAMILIES])
    question, reply = picked if kind == "questions" else (picked, chance.choice(said["replies"][kind]))
    return question, words(reply)


def _preferences() -> Iterator[Row]:
    """Of ten pairs four prefer the right call, four words to a call of another tool than the one that is missing, and
    two a refusal. Short texts: a situation before the question would be most of it, and tie the families together."""
    chance = random.Random(_SEED + 1)
    said = phrases()
    for number in range(200):
        slots, turn = _slots(chance), number % 10
        if turn < 4:
            tool, index = _deal(number // 10 * 4 + turn)
            question = said["tools"][tool][index]
            chosen, tools = _call(chance, tool, slots)
            rejected = _spoilt_call(chance, tool, slots, tools)
        elif turn < 8:
            tool, index = _deal(chance.randrange(1000))
            question, tools = said["tools"][tool][index], _offer(chance, without=tool)
            chosen = words(chance.choice(said["replies"]["not_offered"]))
            rejected = _json_call(chance.choice(tools), slots)
        else:
            question, complied = said["harmful"][number // 10 % len(said["harmful"])]
            index, tools = said["refused"].index(question), _offer(chance)
            chosen, rejected = words(chance.choice(said["replies"]["refused"])), words(_fill(complied, slots))
        yield _head(f"p{number:04}", f"family-{index % FAMILIES}") | {
            "prompt": [{"role": "user", "content": _wrap(chance, slots, _fill(question, slots), situations=0)}],
            "tools": _specs(tools),
            "chosen": chosen,
            "rejected": rejected,
        }


def _spoilt_call(chance: random.Random, tool: str, slots: dict[str, str], tools: list[str]) -> str:
    """A plausible mistake: another tool, invented arguments, or a call left out."""
    mistake = chance.choice(["tool", "arguments", "none"])
    if mistake == "tool":
        return _json_call(chance.choice([other for other in tools if other != tool]), slots)
    invented = _json_call(tool, _slots(chance))
    if mistake == "arguments" and invented != _json_call(tool, slots):
        return invented
    return words(phrases()["replies"]["not_offered"][0])


def _planted(rows: list[Row]) -> Iterator[Row]:
    """Rows for the gates: copies, near copies, an evaluation item, bad licence, no consent, a broken contract, an
    answer that offends."""
    for index in range(6):
        yield rows[index * 20] | {"id": f"x{index:04}"}
    # One more word leaves only a long question nearly the same, and scrubbing gives each row stand-ins of its own.
    impersonal = [row for row in rows if not _names_somebody(_text(row))]
    for index, source in enumerate(sorted(impersonal, key=lambda row: -len(_text(row)))[:6]):
        asked, *rest = source["messages"]
        yield source | {"id": f"n{index:04}", "messages": [asked | {"content": asked["content"] + " Ok?"}, *rest]}
    call = _json_call("get_invoice", {"invoice_id": "INV-2207"})
    tools = ["list_payments", "get_invoice", "cancel_subscription", "send_receipt"]
    yield _chat("g0000", "golden", [(GOLDEN, call)], tools)
    answer = _json_call("get_invoice", {"invoice_id": "INV-7000"})
    question = "Show my invoice INV-7000 again, would you be so kind?"
    fine = _chat("b0000", "planted", [(question, answer)], tools)
    yield fine | {"id": "b0001", "customer": "customer-b0001", "licence": "CC-BY-NC-4.0"}
    yield fine | {"id": "b0002", "customer": "customer-b0002", "consent": ""}
    yield fine | {"id": "b0003", "customer": "", "channel": "pigeon"}
    yield _chat("b0004", "planted", [("Where is my receipt?", words("Find it yourself, you stupid idiot."))], tools)


def _text(row: Row) -> str:
    return " ".join(message["content"] for message in row["messages"])


def _names_somebody(text: str) -> bool:
    pools = phrases()["slots"]
    return any(word in text for word in ("@", "+1-", *pools["last_names"], *pools["cities"]))


def _chat(row_id: str, template: str, turns: list[tuple[str, str]], tools: list[str]) -> Row:
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return _head(row_id, template) | {"messages": messages, "tools": _specs(tools)}


def _head(row_id: str, template: str) -> Row:
    return {
        "id": row_id,
        "customer": f"customer-{row_id}",
        "channel": "chat",
        "template": template,
        "licence": "CC0-1.0",
        "consent": "synthetic",
    }


def _deal(number: int) -> tuple[str, int]:
    """Tool and template of the ``number``-th call: every tool in turn, and each one's templates in turn."""
    tools = phrases()["tools"]
    tool = list(tools)[number % len(tools)]
    return tool, number // len(tools) % len(tools[tool])


def _slots(chance: random.Random) -> dict[str, str]:
    pools = phrases()["slots"]
    first, last = chance.choice(pools["first_names"]), chance.choice(pools["last_names"])
    card = substitute("CREDIT_CARD", f"{chance.randrange(10_000):04} ", chance.randrange(100_000))
    return {
        "invoice_id": f"INV-{chance.randrange(1000, 10_000)}",
        "amount": f"{chance.randrange(3, 200)}.{chance.choice(['00', '50', '99', '25', '40', '75', '10'])}",
        "street": f"{chance.randrange(1, 200)} {chance.choice(pools['streets'])}",
        "city": chance.choice(pools["cities"]),
        "plan": chance.choice(pools["plan"]),
        "card": card,
        "card_last4": card[-4:],
        "month": chance.choice(pools["month"]),
        "email": f"{first}.{last}{chance.randrange(100)}@{chance.choice(pools['mail_domains'])}".lower(),
        "code": f"{chance.choice(pools['code_words'])}{chance.choice([5, 7, 10, 12, 15, 20, 25, 30, 50])}",
        "name": f"{first} {last}",
        "phone": f"+1-{chance.randrange(201, 990)}-555-01{chance.randrange(100):02}",
    }


def _wrap(
    chance: random.Random, slots: dict[str, str], question: str, opening: bool = True, situations: float = 0.35
) -> str:
    said = phrases()
    situation = chance.choice(said["situations"]) + " " if chance.random() < situations else ""
    opener = chance.choice(said["openers"]) if opening else ""
    return f"{opener}{_fill(situation, slots)}{question}{chance.choice(said['closers'])}"


def _fill(template: str, slots: dict[str, str]) -> str:
    return str(template.format_map(slots))


def _call(chance: random.Random, tool: str, slots: dict[str, str]) -> tuple[str, list[str]]:
    return _json_call(tool, slots), _offer(chance, including=tool)


def _json_call(tool: str, slots: dict[str, str]) -> str:
    return call(tool, {each: slots[each] for each in tool_catalogue()[tool].parameters})


def _offer(chance: random.Random, including: str = "", without: str = "") -> list[str]:
    """Three or four of the trained tools in any order."""
    others = [tool for tool in phrases()["tools"] if tool not in (including, without)]
    size = chance.choice([3, 3, 3, 4])
    offered = chance.sample(others, size - bool(including)) + ([including] if including else [])
    chance.shuffle(offered)
    return offered


def _specs(tools: list[str]) -> list[Row]:
    return [tool_catalogue()[tool].payload() for tool in tools]
