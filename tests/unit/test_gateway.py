"""The gateway as a client meets it, in front of a model server that answers at once."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import Shredded
from evals.answers import words
from evals.decoding import as_served
from evals.suite import CallItem
from pipelines.stages.serve.answer import as_openai_tools
from pipelines.stages.serve.routes import challenging, routes_file, share_traffic
from pipelines.stages.serve.tenants import create_key
from resources.adapters import served_name
from tests.support.gateway import HELLO, Installation, installed
from tests.support.ports import free_ports
from tests.support.serving import chain
from tests.support.tiny import CHATML


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path) as found:
        yield found


def test_an_answer_names_what_it_came_from_and_leaves_a_trace_without_text(home: Installation) -> None:
    live = home.promote("a")
    answer = home.ask()
    body = answer.json()
    weights = sha256_bytes(b"a")
    assert body["choices"][0]["message"]["content"] == words(served_name(weights))
    assert body["assay"] == {
        "route": "champion",
        "reason": "",
        "release": live,
        "base": home.parts.base.digest,
        "adapter": weights,
        "export": None,
        "template": home.product.template_digest(),
        "trace_id": body["id"],
    }
    assert body["model"] == home.product.name
    assert answer.headers["x-assay-release"] == live
    assert answer.headers["x-assay-adapter"] == weights
    assert answer.headers["x-assay-trace-id"] == body["id"]
    trace = home.trace(body["id"])
    assert (trace.release, trace.route, trace.status, trace.tenant) == (live, "champion", 200, "acme")
    assert (trace.prompt_tokens, trace.completion_tokens, trace.prompt_chars) == (7, 3, 5)
    assert (trace.json_valid, trace.tool) == (True, None)
    assert "hello" not in trace.model_dump_json()


def test_without_a_release_the_base_answers_and_says_so(home: Installation) -> None:
    body = home.ask().json()
    assert body["choices"][0]["message"]["content"] == words("adapter-zero")
    assert body["assay"]["route"] == "base"
    assert "no release is live" in body["assay"]["reason"]
    assert body["assay"]["release"] is None


def test_the_openai_client_reads_whole_and_streamed_answers(home: Installation) -> None:
    live = home.promote("a")
    key = create_key(home.parts.home, "acme")
    client = openai.OpenAI(base_url=f"{home.url}/v1", api_key=key, max_retries=0, http_client=home.of(key))
    whole = client.chat.completions.create(model="billing", messages=HELLO)
    assert whole.assay["release"] == live
    chunks = list(client.chat.completions.create(model="billing", messages=HELLO, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    assert chunks[0].assay["release"] == live
    assert home.trace(chunks[0].id).completion_tokens == 3
    counted = client.chat.completions.create(
        model="billing", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    assert [chunk.usage.total_tokens for chunk in counted if chunk.usage] == [10]
    assert [model.id for model in client.models.list()] == ["billing"]


@pytest.mark.parametrize("tenant", ["acme", "former"])
def test_nobody_answers_in_the_place_of_what_was_shredded(home: Installation, tenant: str) -> None:
    """Also where the product belongs to another tenant by now."""
    live = home.promote("a")
    body = {"tenant": tenant, "key": "age1", "releases": [live]}
    home.parts.log.append("tenant.shredded", "*", body, actor="test")
    for client in (home.client, home.operator):
        answer = home.ask(client)
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "tenant_shredded")
    assert home.parts.server.asked == []
    assert home.ask(home.operator, model="pricing").status_code == 200
    home.parts.log.append("tenant.restored", "*", body, actor="test")
    assert home.ask().headers["x-assay-release"] == live


def test_a_shred_under_way_is_told_and_the_base_does_not_answer(home: Installation, monkeypatch) -> None:
    home.promote("a")
    home.parts.server.names.clear()

    def refuse(weights: Digest) -> str:
        raise Shredded(f"the key of {weights} was destroyed")

    monkeypatch.setattr(home.parts.server, "ensure_loaded", refuse)
    answer = home.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "tenant_shredded")
    assert home.parts.server.base_name() not in [each["model"] for each in home.parts.server.asked]


def test_the_next_request_after_a_promotion_or_rollback_gets_the_other_release(home: Installation) -> None:
    first, second = home.promote("a"), home.promote("b")
    assert home.ask().headers["x-assay-release"] == second
    chain(home.parts, home.product, first, "rollback.recorded")  # nothing else: the record alone is enough
    assert home.ask().headers["x-assay-release"] == first


def test_a_challenger_with_a_share_answers_the_same_people_all_the_time(home: Installation) -> None:
    live, rival = home.promote("a"), home.release("b")
    with challenging(home.parts, home.product, rival):
        assert home.ask(user="user 1").headers["x-assay-route"] == "champion"
        share_traffic(home.parts, home.product, rival, 0.5, seconds=60)
        first = [home.ask(user=f"user {n}").headers for n in range(30)]
        again = [home.ask(user=f"user {n}").headers["x-assay-release"] for n in range(30)]
        assert [each["x-assay-release"] for each in first] == again
        assert {each["x-assay-route"] for each in first} == {"champion", "challenger"}
        assert 5 < again.count(rival) < 25
        assert home.ask(home.operator, user="user 1").headers["x-assay-route"] == "champion"
        traces = [home.trace(each["x-assay-trace-id"]) for each in first]
        assert len({each.cohort for each in traces}) == 30
        assert {each.refused for each in traces} == {False}
        assert not any("user" in (each.cohort or "") for each in traces)
        share_traffic(home.parts, home.product, rival, 0.5, seconds=-1)
        assert {home.ask(user=f"user {n}").headers["x-assay-release"] for n in range(10)} == {live}
    answer = home.ask()
    assert answer.headers["x-assay-release"] == live
    assert home.trace(answer.headers["x-assay-trace-id"]).cohort is None


TOOL = {"type": "function", "function": {"name": "get_invoice", "description": "", "parameters": {"properties": {}}}}


@pytest.mark.parametrize("asked", [{"tools": [TOOL]}, {"response_format": {"type": "json_object"}}, {}])
def test_half_a_json_is_an_error_and_half_a_text_is_not(home: Installation, asked: dict[str, Any]) -> None:
    home.promote("a")
    home.parts.server.cuts = 2
    whole = home.ask(**asked, max_tokens=5)
    trace = home.trace(whole.headers["x-assay-trace-id"])
    streamed = home.ask(**asked, max_tokens=5, stream=True).text
    if not asked:
        assert whole.json()["choices"][0]["finish_reason"] == "length"
        assert streamed.endswith("data: [DONE]\n\n")
        return
    assert (whole.status_code, whole.json()["error"]["code"]) == (422, "answer_truncated")
    assert "within max_tokens (5)" in whole.json()["error"]["message"]
    assert "at most 96 for this product" in whole.json()["error"]["message"]
    assert (trace.status, trace.reason, trace.json_valid) == (422, "truncated", False)
    assert "[DONE]" not in streamed
    last = json.loads(streamed.strip().rpartition("data: ")[2])
    assert last["error"]["code"] == "answer_truncated"
    assert home.ask(**asked).status_code == 200


@pytest.mark.parametrize("header", ["Bearer assay-stranger", "Bearer", "Basic abc"])
def test_an_unknown_key_is_refused(home: Installation, header: str) -> None:
    home.promote("a")
    answer = home.ask(headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert home.parts.server.asked == []


def test_a_tenant_sees_its_own_products_only(home: Installation) -> None:
    stranger = home.of(create_key(home.parts.home, "globex"))
    answer = home.ask(stranger)
    assert answer.status_code == 404
    assert answer.json() == home.ask(stranger, model="no-such").json() | {
        "error": {**answer.json()["error"], "message": "there is no product 'billing' for this key"}
    }
    assert [card["id"] for card in stranger.get("/v1/models").json()["data"]] == ["pricing"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("chat_template", "{{ 'mine' }}", "'chat_template' is not accepted"),
        ("chat_template_kwargs", {"assay_tools": []}, "'chat_template_kwargs' is not accepted"),
        ("documents", [], "'documents' is not accepted"),
        ("n", 2, "n must be 1"),
        ("max_tokens", 100_000, "max_tokens must be 1 to 96"),
        ("messages", [], "at least one message"),
        ("messages", [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "content (a text)"),
        ("tools", [{"name": "flat"}], "OpenAI function tools"),
        ("tool_choice", "required", "tool_choice must be"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(home: Installation, field: str, value: Any, message: str) -> None:
    home.promote("a")
    answer = home.ask(**{field: value})
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert home.parts.server.asked == []


def test_the_model_gets_the_releases_template_and_the_tools_in_our_shape(home: Installation) -> None:
    home.promote("a")
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    parameters = {"type": "object", "properties": {"invoice_id": {"type": "string", "description": "the invoice"}}}
    tool = {"type": "function", "function": {"name": "get_invoice", "description": "look", "parameters": parameters}}
    home.ask(tools=[tool], response_format=schema, seed=3)
    (asked,) = home.parts.server.asked
    assert asked["chat_template"] == CHATML
    described = {"name": "get_invoice", "description": "look", "parameters": {"invoice_id": "the invoice"}}
    assert asked["chat_template_kwargs"] == {"assay_tools": [described]}
    assert asked["response_format"] == schema
    assert (asked["seed"], asked["temperature"], asked["max_tokens"]) == (3, 0.0, 96)
    assert "tools" not in asked
    assert "structured_outputs" not in asked, "the client's own format counts"


def test_with_tools_on_offer_nothing_but_a_valid_answer_can_be_written(home: Installation) -> None:
    home.promote("a")
    item = CallItem(id="i", cluster="c", text="hello", tools=("get_invoice", "issue_refund"), expect="reply")
    home.ask(tools=as_openai_tools(item.offered()))
    home.ask(tools=as_openai_tools(item.offered()), tool_choice="none")
    home.ask()
    offered, *free = home.parts.server.asked
    judged = as_served(home.product).question(CHATML, item)
    assert offered["structured_outputs"] == judged["structured_outputs"], "served as it was evaluated"
    assert not any("structured_outputs" in asked for asked in free)


def test_a_challenger_answers_only_the_operator_and_only_during_its_canary(home: Installation) -> None:
    live, candidate = home.promote("a"), home.release("b")
    header = {"x-assay-challenger": candidate}
    assert home.ask(home.operator, headers=header).status_code == 409
    with challenging(home.parts, home.product, candidate):
        assert home.ask(headers=header).status_code == 403
        assert home.ask(home.operator, headers={"x-assay-challenger": live}).status_code == 409
        answer = home.ask(home.operator, headers=header)
        assert answer.headers["x-assay-release"] == candidate
        assert answer.json()["assay"]["route"] == "challenger"
        assert home.ask().headers["x-assay-release"] == live
    assert home.ask(home.operator, headers=header).status_code == 409


def test_an_edited_route_table_changes_nothing(home: Installation) -> None:
    live, other = home.promote("a"), home.release("b")
    table = json.loads(routes_file(home.parts.home).read_text())
    table["routes"][0]["champion"] = other
    routes_file(home.parts.home).write_text(json.dumps(table))
    assert home.ask().headers["x-assay-release"] == live


def test_a_broken_audit_log_stops_answers(home: Installation) -> None:
    home.promote("a")
    log = home.parts.log.path
    log.write_bytes(log.read_bytes().replace(b'"actor":"test"', b'"actor":"evil"', 1))
    routes_file(home.parts.home).touch()  # what the gateway notices; it looks again every few seconds by itself
    answer = home.ask()
    assert answer.status_code == 503
    assert "audit log is not intact" in answer.json()["error"]["message"]
    assert httpx.get(f"{home.url}/healthz").status_code == 503


def test_a_server_that_lost_its_adapters_gets_them_back_within_the_request(home: Installation) -> None:
    home.promote("a")
    assert home.ask().status_code == 200
    home.parts.server.names = {"adapter-zero"}
    assert home.ask().status_code == 200
    home.parts.server.names = {"adapter-zero"}
    assert home.ask(stream=True).text.endswith("data: [DONE]\n\n")


def test_a_model_server_that_cannot_be_reached_is_503_with_retry_after(home: Installation) -> None:
    home.promote("a")
    home.parts.server.port = free_ports(1)[0]
    answer = home.ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_a_stream_cut_off_in_the_middle_says_so(home: Installation) -> None:
    home.promote("a")
    home.parts.server.breaks = 1
    answer = home.ask(stream=True)
    assert "[DONE]" not in answer.text
    assert json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["code"] == "cut_off"
    assert home.trace(answer.headers["x-assay-trace-id"]).status == 502


@pytest.mark.parametrize(
    "said", ["<html>", "[]", "{}", "null", '{"choices": []}', '{"error": {"message": "/srv/x.py"}}']
)
def test_an_answer_that_cannot_be_read_is_a_502(home: Installation, said: str) -> None:
    home.promote("a")
    home.parts.server.garbage = said
    whole = home.ask()
    assert (whole.status_code, whole.json()["error"]["code"]) == (502, "model_server_failed")
    assert home.trace(whole.headers["x-assay-trace-id"]).status == 502
    streamed = home.ask(stream=True)
    told = json.loads(streamed.text.strip().rpartition("data: ")[2])["error"]["code"]
    assert told == ("model_server_failed" if streamed.status_code == 502 else "cut_off")
    assert home.trace(streamed.headers["x-assay-trace-id"]).status == 502
    assert "/srv" not in whole.text + streamed.text


def test_the_model_servers_reason_for_refusing_a_request_reaches_the_client(home: Installation) -> None:
    home.promote("a")
    answer = home.ask(messages=[{"role": "user", "content": "too long"}])
    assert answer.status_code == 400
    assert "too long" in answer.json()["error"]["message"]


def test_keys_are_kept_as_hashes_in_private_files(home: Installation) -> None:
    key = create_key(home.parts.home, "acme")
    tenants = home.parts.home / "tenants.json"
    assert key not in tenants.read_text()
    for path in (tenants, home.parts.home / "keys" / "operator_key"):
        assert path.stat().st_mode & 0o777 == 0o600
