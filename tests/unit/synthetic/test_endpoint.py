"""The client against a real server on loopback: bounded, patient with what passes, quick with what does not."""

from collections import Counter
from pathlib import Path

import pytest

from data_contracts.digests import Digest, sha256_json
from data_contracts.errors import BadInput, Unavailable
from pipelines.stages.data.synthesize import synthesize
from pipelines.stages.data.synthetic.answer_file import AnswerFile
from pipelines.stages.data.synthetic.plan import load_seeds
from pipelines.stages.data.synthetic.requests import requests
from pipelines.stages.data.synthetic.validate import Completion
from resources.openai_endpoint import OpenAiEndpoint
from tests.support.ports import free_ports
from tests.support.teacher import DETECTOR, Body, Reply, TeacherServer, obedient, plan_of, teaching, written


def bodies(count: int) -> dict[Digest, Body]:
    plan = plan_of(per_stratum=(count + 1) // 2)
    return {each.digest: each.body for each in list(requests(plan, load_seeds(plan), "m"))[:count]}


def ask(
    server: TeacherServer, questions: dict[Digest, Body], **settings: object
) -> tuple[dict[Digest, str], Counter[str]]:
    """Why each failure, and how often each answer came."""
    answers: Counter[str] = Counter()

    def answered(request: Digest, completion: Completion) -> None:
        assert completion == Completion(written(questions[request]), "stop")
        answers[request] += 1

    return OpenAiEndpoint(server.url, **settings).ask(questions, answered), answers  # type: ignore[arg-type]


def test_each_request_gets_its_own_answer_and_only_so_many_run_at_once() -> None:
    questions = bodies(40)
    with teaching(lambda body, before: Reply(written(body), delay=0.02)) as server:
        failed, answers = ask(server, questions, concurrency=4)
    assert failed == {}
    assert answers == dict.fromkeys(questions, 1)
    assert 2 <= server.most <= 4
    assert set(server.seen.values()) == {1}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    questions = bodies(6)
    with teaching(lambda body, before: Reply(written(body), status=status if before < 2 else 200)) as server:
        failed, answers = ask(server, questions)
    assert failed == {}
    assert answers == dict.fromkeys(questions, 1)
    assert set(server.seen.values()) == {3}


def test_an_answer_that_takes_too_long_is_tried_again() -> None:
    questions = bodies(2)
    with teaching(lambda body, before: Reply(written(body), delay=0.0 if before else 3.0)) as server:
        failed, answers = ask(server, questions, timeout=0.5)
    assert failed == {}
    assert answers == dict.fromkeys(questions, 1)


@pytest.mark.parametrize("raw", ["{", "[]", "{}", '"text"', '{"choices": []}', '{"choices": [{"message": null}]}'])
def test_an_answer_that_is_none_fails_alone(raw: str) -> None:
    questions = bodies(6)
    bad = next(iter(questions))

    def reply(body: Body, before: int) -> Reply:
        return Reply(raw=raw) if body == questions[bad] else Reply(written(body))

    with teaching(reply) as server:
        failed, answers = ask(server, questions, retries=1)
    assert failed == {bad: "the answer is no chat completion"}
    assert set(answers) == set(questions) - {bad}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_request_that_is_refused_stops_the_run_at_once(status: int) -> None:
    with (
        teaching(lambda body, before: Reply(status=status)) as server,
        pytest.raises(Unavailable, match=f"status {status}"),
    ):
        ask(server, bodies(40), concurrency=2)
    assert sum(server.seen.values()) <= 4


def test_a_server_out_of_order_stops_the_run_and_keeps_what_it_answered() -> None:
    questions = bodies(60)
    kept: list[Digest] = []
    first = set(list(questions)[:10])

    def reply(body: Body, before: int) -> Reply:
        return Reply(written(body)) if sha256_json(body) in first else Reply(status=500)

    with teaching(reply) as server, pytest.raises(Unavailable, match="failed 8 times in a row"):
        OpenAiEndpoint(server.url, concurrency=4, retries=1).ask(
            questions, lambda digest, completion: kept.append(digest)
        )
    assert set(kept) == first
    assert len(server.seen) < 30


def test_a_server_that_is_not_there_is_an_error() -> None:
    endpoint = OpenAiEndpoint(f"http://127.0.0.1:{free_ports(1)[0]}/v1", retries=0)
    with pytest.raises(Unavailable, match="Connection error"):
        endpoint.ask(bodies(10), lambda digest, completion: None)
    with pytest.raises(BadInput, match="is no address"):
        OpenAiEndpoint("127.0.0.1:8000")


def test_a_key_of_the_environment_goes_to_no_server_that_it_was_not_named_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you")
    with teaching(obedient) as server:
        ask(server, bodies(2))
        assert server.keys == {"Bearer none"}
        ask(server, bodies(4), key="for-you")
        assert server.keys == {"Bearer none", "Bearer for-you"}


def test_a_request_that_failed_is_counted_and_asked_again_the_next_time(tmp_path: Path) -> None:
    plan = plan_of()
    bad = list(requests(plan, load_seeds(plan), "m"))[3].body
    mended = False

    def reply(body: Body, before: int) -> Reply:
        return Reply(status=500) if body == bad and not mended else Reply(written(body))

    def run(server: TeacherServer) -> tuple[dict[str, int], int]:
        before = sum(server.seen.values())
        with AnswerFile(tmp_path / "rows.jsonl.answers") as answers:
            made = synthesize(plan, "m", OpenAiEndpoint(server.url, retries=1), DETECTOR, answers)
        return made.payload()["yields"], sum(server.seen.values()) - before

    with teaching(reply) as server:
        assert run(server) == ({"row": 11, "no-answer": 1}, 13)
        mended = True
        assert run(server) == ({"row": 12}, 1)
