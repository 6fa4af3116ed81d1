"""From a question at the gateway, over HTTP, to what is learned from its correction: on SQLite and on PostgreSQL."""

from pathlib import Path

from pipelines.recipes.product import Keep
from pipelines.stages.data.feedback import accepted
from pipelines.stages.signals.adjudication import decide, queue
from pipelines.stages.signals.collector import Collector
from tests.support.data import QuickAnalyzer
from tests.support.gateway import installed


def test_a_correction_goes_from_the_gateway_through_collector_and_queue_to_a_row(
    store_url: str, tmp_path: Path
) -> None:
    with installed(tmp_path, keep=Keep(share=1), traces=store_url) as home:
        parts = home.parts
        parts.pii = QuickAnalyzer()  # type: ignore[attr-defined]
        release = home.promote("a")
        product = home.product.model_copy(update={"data_policy": "billing-assistant"})
        answer = home.ask(messages=[{"role": "user", "content": "I am Maria Keller. When?"}], user="C-1").json()
        said = {
            "trace_id": answer["id"],
            "rating": "bad",
            "correction": "Dear Maria Keller, on the 2nd.",
            "user": "C-1",
        }
        for _ in range(2):
            assert home.client.post("/v1/feedback", json=said).status_code == 202
        while len(parts.feedback.sealed(None, 9)) < 2:
            parts.feedback.flush()
        assert Collector(parts, lambda: [product]).collect() == {"kept": 2}  # type: ignore[arg-type]
        (case,) = queue(parts, product.name)  # type: ignore[arg-type]
        assert case.exchange is not None
        assert accepted(parts, product.name) == []  # type: ignore[arg-type]
        decide(parts, product.name, case.feedback.feedback_id[:15], True, "checked", "cli:bea")  # type: ignore[arg-type]
        assert queue(parts, product.name) == []  # type: ignore[arg-type]
        ((correction, exchange),) = accepted(parts, product.name)  # type: ignore[arg-type]
    assert (correction.trace_id, exchange.release) == (answer["id"], release)
    assert exchange.subject == correction.author
    assert "Keller" not in f"{correction}{exchange}"
