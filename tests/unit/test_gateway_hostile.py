"""What a security tester sends by hand: each is one clear refusal that names the field."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pipelines.stages.serve.body import DEEPEST, MOST_BYTES
from tests.support.gateway import HELLO, Installation, installed

WORD = {"role": "user", "content": "x"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("attacked")) as installation:
        installation.promote("a")
        yield installation


def sent(home: Installation, body: bytes, **headers: str) -> tuple[int, str]:
    answer = home.client.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()["error"]["message"] if answer.status_code != 200 else ""


def with_field(field: str, value: str) -> bytes:
    """A chat request with this field, whose value is written as it stands."""
    return b'{"model": "billing", "messages": %s, %s: %s}' % (
        json.dumps(HELLO).encode(),
        json.dumps(field).encode(),
        value.encode(),
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b"null", "must be a JSON object with `model`"),
        (b"[]", "must be a JSON object with `model`"),
        (b"{}", "must be a JSON object with `model`"),
        (b'{"model": 5}', "must be a JSON object with `model`"),
        (b'{"model": "billing"}', "messages must be"),
        (b"model=billing&messages=x", "not JSON"),
        (b"\xff\xfe{}", "not JSON in UTF-8"),
        (b'{"model": "billing", "messages": "\xff"}', "not JSON in UTF-8"),
        (b'{"model": "\\ud800"}', "'model' holds half of a surrogate pair"),
        (with_field("user", '"\\udfff"'), "'user' holds half of a surrogate pair"),
        (with_field("metadata", '{"\\ud800": 1}'), "'metadata' holds half of a surrogate pair"),
        (with_field("\ud800", "1"), "'\\ud800' holds half of a surrogate pair"),
        (with_field("model", '"pricing"'), "the field 'model' stands twice"),
        (with_field("metadata", '{"a": 1, "a": 2}'), "the field 'a' stands twice"),
        (with_field("temperature", "NaN"), "NaN is not JSON"),
        (with_field("metadata", "[Infinity]"), "Infinity is not JSON"),
        (with_field("temperature", "1e999"), "'temperature' holds a number that is not finite"),
        (with_field("seed", "9" * 5000), "not JSON"),
        (with_field("temperature", "9" * 400), "temperature must be a number from 0"),
        (with_field("metadata", "[" * 100_000), f"more than {DEEPEST} levels deep"),
        (with_field("metadata", "[" * 100 + "]" * 100), f"'metadata' is nested more than {DEEPEST} levels deep"),
        (with_field("x" * 100_000, "1"), "is not accepted"),
        (with_field("metadata", json.dumps([0] * 60_000)), "'metadata' holds more than 50000 values"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_a_body_that_is_no_fair_json_is_refused(home: Installation, body: bytes, message: str) -> None:
    status, told = sent(home, body)
    assert (status, message in told) == (400, True), told
    assert len(told) < 300


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("temperature", value) for value in (-1, 2.1, True, "hot", "0.5", [], {})],
        *[("top_p", value) for value in (0, 1.1, True, "1")],
        *[("max_tokens", value) for value in (True, 0, -1, 1.5, "5", 10**30, 97)],
        *[("max_completion_tokens", value) for value in (True, 0, {})],
        *[("n", value) for value in (True, 0, 2, "1")],
        *[("seed", value) for value in (True, 2**63, 1.5, "x")],
        *[("stop", value) for value in ("", ["x"] * 5, ["x"] * 10_000, [1], [""], {}, 5)],
        *[("presence_penalty", value) for value in (3, True)],
        *[("top_logprobs", value) for value in (-1, 21, True)],
        *[("logprobs", value) for value in (1, "yes")],
        *[("stream", value) for value in (1, "yes", {})],
        *[("stream_options", value) for value in (1, "yes", [], {"include_usage": "yes"})],
        *[("tool_choice", value) for value in ("required", {}, [], 0, TOOL)],
        *[("tools", value) for value in ({}, "x", [1], [[]], [{}], [TOOL | {"function": 1}], [0] * 10_000)],
        *[("tools", [{"function": {"name": value}}]) for value in ("none", "A", "", None, 5, "x" * 100)],
        *[("tools", [{"function": {"name": "ab", "parameters": value}}]) for value in ([], 5, {"properties": [1]})],
        *[("response_format", value) for value in ("json", [], {}, {"type": 5}, {"type": "json_schema"})],
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": "y"}}),
        ("response_format", {"type": "json_schema", "json_schema": []}),
        *[("messages", value) for value in ({}, "x", [1], [[]], [{}], [WORD | {"role": "root"}], [WORD, "x"])],
        *[("messages", [WORD | {"content": value}]) for value in (None, 5, True, [], {})],
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_value_of_the_wrong_kind_is_refused_by_the_fields_name(home: Installation, field: str, value: Any) -> None:
    asked = len(home.parts.server.asked)
    answer = home.ask(**{field: value})
    told = answer.json()["error"]["message"]
    expected = "max_tokens" if field == "max_completion_tokens" else field
    assert (answer.status_code, told.startswith((f"{field} must be", f"{expected} must be"))) == (400, True), told
    assert len(told) < 300
    assert len(home.parts.server.asked) == asked


@pytest.mark.parametrize(
    "more",
    [
        {"n": 1.0, "seed": 3.0, "max_tokens": 46.0},
        dict.fromkeys(("n", "seed", "stop", "stream", "tools", "tool_choice", "user", "max_tokens", "response_format")),
        {"user": 5, "metadata": {"a": [1]}, "store": False, "parallel_tool_calls": True},
        {"messages": [{"role": "user", "content": "a \x00 b", "name": "x"}]},
        {"tools": [{"function": {"name": "look", "strict": True}}], "stop": ["a", "b", "c", "d"]},
        {"stream_options": {"include_usage": False, "include_obfuscation": False}},
    ],
    ids=repr,
)
def test_what_clients_may_say_is_answered(home: Installation, more: dict[str, Any]) -> None:
    assert home.ask(**more).status_code == 200


def test_a_body_beyond_the_bound_is_413_and_one_within_is_read(home: Installation) -> None:
    status, told = sent(home, with_field("metadata", json.dumps("x" * MOST_BYTES)))
    assert (status, told) == (413, "the body has more than 4 MiB")
    assert sent(home, with_field("metadata", json.dumps("x" * (MOST_BYTES - 200))))[0] == 200


def test_a_body_is_not_read_without_a_key(home: Installation) -> None:
    answer = httpx.post(f"{home.url}/v1/chat/completions", content=b"not even JSON", verify=False)
    assert answer.status_code == 401


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", ""])
def test_the_content_type_makes_no_difference(home: Installation, kind: str) -> None:
    assert sent(home, with_field("seed", "1"), **{"content-type": kind})[0] == 200
    assert sent(home, b"<xml/>", **{"content-type": kind})[0] == 400


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer \t x", "bearer x", "Basic YTpi", "Bearer a b", "Bearer \xff", "x" * 5000]
)
def test_an_odd_authorization_is_401(home: Installation, header: str) -> None:
    for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/metrics")):
        answer = httpx.request(
            method, home.url + path, headers={"authorization": header.encode("latin-1")}, verify=False
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_key_counts_however_its_scheme_is_written(home: Installation) -> None:
    key = home.client.headers["authorization"].removeprefix("Bearer ")
    for header in (f"bearer {key}", f"BEARER  {key}"):
        assert home.client.get("/v1/models", headers={"authorization": header}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/../etc/passwd", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/completions", 404),
    ],
)
def test_other_paths_and_methods_are_refused_in_openais_form(
    home: Installation, method: str, path: str, status: int
) -> None:
    answer = home.client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_header_beyond_all_bounds_ends_at_the_server(home: Installation) -> None:
    host, _, port = home.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * 200_000 + b"\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert home.ask().status_code == 200
