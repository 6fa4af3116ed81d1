"""The gateway under requests that schemathesis makes of its own description: right ones are answered, and wrong ones
refused in OpenAI's form, without a failure, a path or a stack trace. Seeded, so that a slice is the same each time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pipelines.recipes.product import ROOT, Keep
from pipelines.stages.serve.gateway import make_gateway
from pipelines.stages.serve.openapi import description
from tests.support.gateway import HELLO, Installation, installed

DESCRIBED = schemathesis.openapi.from_dict(description())
CHAT = DESCRIBED["/v1/chat/completions"]["POST"]
FEEDBACK = DESCRIBED["/v1/feedback"]["POST"]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
INSIDE = ("Traceback", 'File "', "site-packages", ".py", str(ROOT))
SLICE = pytest.param(25, id="slice")
LONG = pytest.param(2000, id="long", marks=[pytest.mark.drill, pytest.mark.timeout(3600)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("fuzzed"), keep=Keep()) as installation:
        installation.promote("a")
        yield installation


def asked(home: Installation, case: Any, client: Any) -> Any:
    """The answer, after the checks that any answer has to pass."""
    answer = case.call(base_url=home.url, headers=dict(client.headers) if client else None)
    case.validate_response(answer, checks=CHECKS)
    text = answer.content.decode()
    assert not [word for word in (*INSIDE, str(home.parts.home)) if word in text]
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == ["application/json"]
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert len(text) < 1000, "what was sent is not sent back"
    return answer


def many(examples: int) -> Any:
    """Without shrinking: each step asks over HTTP, and the request that failed is shown as it was."""
    return settings(
        max_examples=examples,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=False,
        phases=[Phase.generate],
    )


@pytest.mark.parametrize("examples", [SLICE, LONG])
def test_what_the_description_allows_is_answered(home: Installation, examples: int) -> None:
    @seed(1)
    @many(examples)
    @given(CHAT.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def answered(case: Any) -> None:
        case.headers = {}
        case.body["model"] = home.product.name
        for field in ("max_tokens", "max_completion_tokens"):
            if case.body.get(field):
                case.body[field] = 1 + case.body[field] % home.product.serving.max_tokens
        assert asked(home, case, home.client).status_code == 200

    answered()


@pytest.mark.parametrize("examples", [SLICE, LONG])
def test_what_it_does_not_allow_is_refused(home: Installation, examples: int) -> None:
    @seed(2)
    @many(examples)
    @given(CHAT.as_strategy(generation_mode=GenerationMode.NEGATIVE), st.booleans())
    def refused(case: Any, ours: bool) -> None:
        """Of those for a product that is there, some are mended by its name, and answered; some bring another key."""
        if isinstance(case.body, dict) and ours:
            case.body["model"] = home.product.name
        answer = asked(home, case, home.client)
        assert ours or answer.status_code in (400, 401, 403, 404)

    refused()


@pytest.mark.parametrize("examples", [SLICE, LONG])
def test_feedback_is_taken_as_described_and_not_otherwise(home: Installation, examples: int) -> None:
    trace = home.ask().json()["id"]
    home.parts.traces.flush()

    @seed(4)
    @many(examples)
    @given(FEEDBACK.as_strategy(generation_mode=GenerationMode.POSITIVE), st.booleans())
    def taken(case: Any, ours: bool) -> None:
        case.headers = {}
        if ours:
            case.body["trace_id"] = trace
        assert asked(home, case, home.operator).status_code == (202 if ours else 404)

    @seed(5)
    @many(examples)
    @given(FEEDBACK.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def refused(case: Any) -> None:
        assert asked(home, case, home.client).status_code in (400, 401, 403, 404)

    taken()
    refused()


@pytest.mark.parametrize("examples", [SLICE, LONG])
def test_without_a_key_there_is_no_answer(home: Installation, examples: int) -> None:
    @seed(3)
    @many(examples)
    @given(st.one_of([each.ok().as_strategy() for each in DESCRIBED.get_all_operations()]))
    def denied(case: Any) -> None:
        answer = asked(home, case, None)
        assert answer.status_code == (200 if case.path == "/healthz" else 401)

    asked_before = len(home.parts.server.asked)
    denied()
    assert len(home.parts.server.asked) == asked_before


def test_every_path_is_described(home: Installation) -> None:
    routes = make_gateway(home.parts, list, reconcile_seconds=0).routes
    there = {(route.path, *map(str.lower, route.methods)) for route in routes if isinstance(route, APIRoute)}
    published = home.client.get("/openapi.json").json()
    described = {(path, *operations) for path, operations in published["paths"].items()}
    assert there - {("/openapi.json", "get")} == described


def test_a_refusal_by_a_limit_is_as_described(tmp_path: Path) -> None:
    case = CHAT.Case(body={"model": "billing", "messages": HELLO}, media_type="application/json")
    with installed(tmp_path, "default: {requests_a_minute: 1}") as limited:
        assert asked(limited, case, limited.client).status_code == 200
        assert asked(limited, case, limited.client).status_code == 429
