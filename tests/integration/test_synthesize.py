"""The real vLLM with the tiny base as a teacher: what a model of random weights writes is held to the schema."""

import json
from pathlib import Path

from pipelines.stages.data.synthesize import synthesize
from pipelines.stages.data.synthetic.answer_file import AnswerFile
from resources.openai_endpoint import OpenAiEndpoint
from resources.vllm_server import VllmServer
from tests.support.teacher import DETECTOR, plan_of
from tests.support.tiny import CHATML


def test_a_server_that_takes_the_schema_writes_nothing_else(tiny_vllm: VllmServer, tmp_path: Path) -> None:
    template = tmp_path / "chatml.jinja"
    template.write_text(CHATML)
    lengths = [{"name": "any", "words": [1, 4]}]
    plan = plan_of(chat_template=str(template), lengths=lengths, max_tokens=900, per_stratum=3, temperature=1.0)
    with AnswerFile(tmp_path / "rows.answers") as answers:
        made = synthesize(plan, tiny_vllm.base_name(), OpenAiEndpoint(tiny_vllm.url()), DETECTOR, answers)
    yields = made.payload()["yields"]
    assert sum(yields.values()) == 6
    assert len(answers.known) == 6
    assert {each.finish for each in answers.known.values()} <= {"stop", "length"}
    ended = [json.loads(each.text, strict=False) for each in answers.known.values() if each.finish == "stop"]
    assert ended
    assert all(set(row) == {"question", "answer"} for row in ended)
    assert {row["answer"]["tool"] for row in ended} <= {"get_invoice", "none"}
    assert not {"no-answer", "not-json", "withheld"} & set(yields)
