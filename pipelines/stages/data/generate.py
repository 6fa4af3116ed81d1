"""The demo product's rows: synthetic, labelled so, the same bytes on every machine. Some are planted to fail a gate.

A row has its own licence and consent basis, as the contract says; ``template`` names the sentence it was made from.
"""

import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from data_contracts.errors import BadInput
from evals.suite import tool_catalogue
from pipelines.stages.data.substitutes import substitute

_SEED = 20240
_PHRASES = Path(__file__).with_name("phrases.yaml")
Row = dict[str, Any]

GOLDEN = "Just off a night shift and trying to sort my paperwork. Could you pull up INV-2207 for me?"
"""An item of the suite billing-tools, planted so that decontamination has work."""


def generated(name: str) -> bytes:
    """JSON lines of ``billing-conversations`` or ``billing-preferences``."""
    makers: dict[str, Callable[[], Iterator[Row]]] = {
        "billing-conversations": _conversations,
        "billing-preferences": _preferences,
    }
    if name not in makers:
        raise BadInput(f"source generated://{name}: known names are {', '.join(makers)}")
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in makers[name]()).encode()


@cache
def phrases() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(_PHRASES.read_text(encoding="utf-8"))
    return loaded


def _conversations() -> Iterator[Row]:
    chance = random.Random(_SEED)
    rows = [_chat(f"c{number:04}", *_talk(chance, number)) for number in range(680)]
    yield from rows
    yield from _planted(rows)


def _talk(chance: random.Random, number: int) -> tuple[str, str, str, list[str]]:
    """(template, question, answer, tools on offer). Of twenty rows thirteen call a tool, the others answer in words."""
    said, slots, turn = phrases(), _slots(chance), number % 20
    if turn < 13:
        tool, index = _deal(number // 20 * 13 + turn)
        return (
            f"{tool}-{index}",
            _wrap(chance, slots, _fill(said["tools"][tool][index], slots)),
            *_call(chance, tool, slots),
        )
    if turn < 16:
        tool, index = _deal(chance.randrange(1000))
        question, reply = said["tools"][tool][index], chance.choice(said["replies"]["not_offered"])
        return (
            f"{tool}-{index}",
            _wrap(chance, slots, _fill(question, slots)),
            _words(reply),
            _offer(chance, without=tool),
        )
    kind = {16: "off_topic", 17: "questions"}.get(turn, "refused")
    index = number // 20 % len(said[kind]) if turn < 18 else (number // 20 * 2 + turn) % len(said[kind])
    question, reply = (
        said[kind][index] if kind == "questions" else (said[kind][index], chance.choice(said["replies"][kind]))
    )
    return f"{kind}-{index}", _wrap(chance, slots, _fill(question, slots)), _words(reply), _offer(chance)


def _preferences() -> Iterator[Row]:
    chance = random.Random(_SEED + 1)
    said = phrases()
    for number in range(200):
        slots, turn = _slots(chance), number % 10
        if turn < 6:
            tool, index = _deal(number // 10 * 6 + turn)
            template, question = f"{tool}-{index}", said["tools"][tool][index]
            chosen, tools = _call(chance, tool, slots)
            rejected = _spoilt_call(chance, turn, tool, slots, tools)
        elif turn < 8:
            tool, index = _deal(chance.randrange(1000))
            template, question, tools = f"{tool}-{index}", said["tools"][tool][index], _offer(chance, without=tool)
            chosen = _words(chance.choice(said["replies"]["not_offered"]))
            rejected = _json_call(chance.choice(tools), slots)
        else:
            index = number // 10 % len(said["harmful"])
            question, complied = said["harmful"][index]
            template, tools = f"harmful-{index}", _offer(chance)
            chosen, rejected = _words(chance.choice(said["replies"]["refused"])), _words(_fill(complied, slots))
        yield _head(f"p{number:04}", template) | {
            "prompt": [{"role": "user", "content": _wrap(chance, slots, _fill(question, slots))}],
            "tools": _specs(tools),
            "chosen": chosen,
            "rejected": rejected,
        }


def _spoilt_call(chance: random.Random, turn: int, tool: str, slots: dict[str, str], tools: list[str]) -> str:
    """A plausible mistake: another tool, an invented argument, chatter around the JSON, or a call left out."""
    right = json.loads(_json_call(tool, slots))
    if turn in (0, 4):
        return _json_call(chance.choice([other for other in tools if other != tool]), slots)
    if turn in (1, 5):
        other = _json_call(tool, _slots(chance))
        return other if other != json.dumps(right) else json.dumps(right | {"arguments": {}})
    if turn == 2:
        return f"Sure, I can do that for you! {json.dumps(right)}"
    return _words(phrases()["replies"]["not_offered"][0])


def _planted(rows: list[Row]) -> Iterator[Row]:
    """Rows for the gates: copies, near copies, an evaluation item, bad licence, no consent, a broken contract."""
    for index in range(6):
        yield rows[index * 20] | {"id": f"x{index:04}"}
    # One more word leaves only a long question nearly the same, and scrubbing gives each row stand-ins of its own.
    impersonal = [row for row in rows if not _names_somebody(row["messages"][0]["content"])]
    for index, source in enumerate(sorted(impersonal, key=lambda row: -len(row["messages"][0]["content"]))[:6]):
        asked, answer = source["messages"]
        yield source | {"id": f"n{index:04}", "messages": [asked | {"content": asked["content"] + " Ok?"}, answer]}
    call = _json_call("get_invoice", {"invoice_id": "INV-2207"})
    tools = ["list_payments", "get_invoice", "cancel_subscription", "send_receipt"]
    yield _chat("g0000", "golden", GOLDEN, call, tools)
    answer = _json_call("get_invoice", {"invoice_id": "INV-7000"})
    fine = _chat("b0000", "planted", "Show my invoice INV-7000 again, would you be so kind?", answer, tools)
    yield fine | {"id": "b0001", "customer": "customer-b0001", "licence": "CC-BY-NC-4.0"}
    yield fine | {"id": "b0002", "customer": "customer-b0002", "consent": ""}
    yield fine | {"id": "b0003", "customer": "", "channel": "pigeon"}


def _names_somebody(question: str) -> bool:
    pools = phrases()["slots"]
    return any(word in question for word in ("@", "+1-", *pools["last_names"], *pools["cities"]))


def _chat(row_id: str, template: str, question: str, answer: str, tools: list[str]) -> Row:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
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


def _wrap(chance: random.Random, slots: dict[str, str], question: str) -> str:
    said = phrases()
    situation = chance.choice(said["situations"]) + " " if chance.random() < 0.35 else ""
    return f"{chance.choice(said['openers'])}{_fill(situation, slots)}{question}{chance.choice(said['closers'])}"


def _fill(template: str, slots: dict[str, str]) -> str:
    return str(template.format_map(slots))


def _call(chance: random.Random, tool: str, slots: dict[str, str]) -> tuple[str, list[str]]:
    return _json_call(tool, slots), _offer(chance, including=tool)


def _json_call(tool: str, slots: dict[str, str]) -> str:
    return json.dumps({"tool": tool, "arguments": {each: slots[each] for each in tool_catalogue()[tool].parameters}})


def _words(text: str) -> str:
    return json.dumps({"reply": text})


def _offer(chance: random.Random, including: str = "", without: str = "") -> list[str]:
    """Three or four of the trained tools in any order."""
    others = [tool for tool in phrases()["tools"] if tool not in (including, without)]
    size = chance.choice([3, 3, 3, 4])
    offered = chance.sample(others, size - bool(including)) + ([including] if including else [])
    chance.shuffle(offered)
    return offered


def _specs(tools: list[str]) -> list[Row]:
    return [tool_catalogue()[tool].payload() for tool in tools]
