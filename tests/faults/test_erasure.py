"""Erasure reaches every store and every route, and is finished after a crash anywhere."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import resources.dataset_store as dataset_store
from data_contracts.digests import hex_of
from data_contracts.errors import Missing, Refused
from pipelines.stages.data import deduplicate, steps
from pipelines.stages.release.approval import accept
from pipelines.stages.release.candidate import register
from pipelines.stages.release.promotion import promote
from pipelines.stages.release.registered import awaiting_approval, latest_registered
from pipelines.stages.release.rollback import rollback
from pipelines.stages.release.verify import verify
from pipelines.stages.serve import routes
from pipelines.stages.serve.gateway import make_gateway
from pipelines.stages.serve.raw_text import RawFeedback, sealed
from pipelines.stages.serve.routes import challenging, read_routes
from pipelines.stages.serve.tenants import create_key
from pipelines.stages.serve.view import RouteView
from pipelines.stages.signals import erasure, erasure_queue
from pipelines.stages.signals.erasure_receipts import listed
from pipelines.stages.train.steps import sft
from resources.adapters import served_name
from tests.support.crash import PowerLoss, fails
from tests.support.data import QuickAnalyzer
from tests.support.erasing import MARK, PERSON, REASON, ErasingLine, champion, erased_whole, events
from tests.support.feedback import make_exchange, make_feedback
from tests.support.line import REPORT
from tests.support.pieces import NAME
from tests.support.ports import free_ports
from tests.support.search import own_texts, traces_of
from tests.support.serving import FakeVllm, fake_vllm, running
from tests.support.traces import START


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> ErasingLine:
    return ErasingLine(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def line(whole, tmp_path) -> ErasingLine:
    return whole.copied(tmp_path / "copy")


def test_the_text_is_there_before(line):
    """What the searches below look for, they find in every kind of store."""
    line.leave_behind()
    found = traces_of(line.parts.home, MARK)
    places = {path.split("/")[0].split("-")[0] for path in found}
    assert places == {"rows", "store", "training", "fetched", "answers.sqlite"}
    assert any("quarantine" in path for path in found)


def test_what_a_drill_looks_for_is_the_persons_alone(line):
    mine = own_texts(line.parts, line.subject)
    assert {f"my {MARK} is broken", "m.keller@example.org"} <= {*mine}
    assert not [text for text in mine if re.search(r"word\d", text)]
    other = next(who for _, who in line.parts.datasets.names(line.splits.root) if who != line.subject)
    assert own_texts(line.parts, other)
    assert not {*own_texts(line.parts, other)} & {*mine}


def test_everything_of_a_person_goes_and_the_receipt_says_so(line):
    other_run = line.leave_behind()
    receipt, again = line.erase()
    assert not again
    erased_whole(line)
    assert sorted(path.name for path in other_run.parent.iterdir()) == [other_run.name]
    assert (other_run / "rows" / "train.jsonl").exists()
    assert line.samples in receipt.samples
    assert receipt.releases == (line.tainted.digest,)
    assert [(r.release, r.fallback) for r in receipt.routes] == [(line.tainted.digest, line.clean.digest)]
    assert set(receipt.data_sets) == {manifest.root for manifest, _ in line.data.values()}
    (proposal,) = receipt.retraining
    assert (proposal.effort_seconds, proposal.training_rows) == (40, line.splits.counts.rows_out)
    assert proposal.erased_rows == 9  # of ten: one breaks its contract
    assert len(receipt.rows) > proposal.erased_rows
    assert "not unlearning" in " ".join(receipt.not_proved)
    assert line.erase() == (receipt, True)
    assert events(line).count("erasure.completed") == 1


def test_what_the_person_asked_and_said_goes_also_where_it_waits_sealed(line):
    parts, keys = line.parts, line.parts.tenant_keys
    said = dict.fromkeys(("rating", "correction", "label")) | {"trace_id": "t", "by": "user"}
    for name, user in (("f-theirs", PERSON), ("f-others", "C-1")):
        raw = RawFeedback.model_validate(said | {"rating": "bad", "user": user})
        parts.feedback.add_sealed(sealed(keys, raw, name, START, line.product.tenant, ""))
    parts.feedback.add_exchange(make_exchange("t1", subject=line.subject, answer=f"about {MARK}"))
    parts.feedback.add(make_feedback("f1", trace_id="t1", author="a reviewer", correction=f"about {MARK}"))
    parts.feedback.add(make_feedback("f2", trace_id="t2", author=line.subject))
    parts.feedback.add(make_feedback("f3", trace_id="t2"))
    receipt, _ = line.erase()
    assert parts.feedback.held([line.subject]) == 0
    assert [each.feedback_id for each in parts.feedback.of_trace("t2")] == ["f3"]
    assert [each.name for each in parts.feedback.sealed(None, 9)] == ["f-others"]
    assert any("feedback" in sentence for sentence in receipt.proved)


def test_neither_receipt_nor_log_holds_who_it_was(line):
    receipt, _ = line.erase()
    kept = json.dumps(receipt.payload()) + (line.parts.home / "chain" / "log.jsonl").read_text()
    assert PERSON not in kept
    assert MARK not in kept
    assert line.subject in kept


def test_the_destroyed_key_is_in_no_file(line):
    key = line.parts.keyring.key(line.subject)

    def holding() -> list[Path]:
        files = [path for path in (line.parts.home / "vault").rglob("*") if path.is_file()]
        return [path for path in files if key in path.read_bytes()]

    assert holding()
    line.erase()
    assert not holding()


def test_the_next_run_makes_clean_data_and_a_clean_model_from_the_same_source(line):
    line.erase()
    done = line.run_data()
    assert [hit for _, hit in done.values()] == [False] * len(done), "no cached data set holds the rows and is taken"
    assert done["raw"][0].counts.dropped == {"erased": 10}
    held = list(line.parts.datasets.read_quarantine(done["raw"][0].action_key))
    assert all("take it out of the source" in reason and set(row) == {"source", "line"} for _, _, reason, row in held)
    assert traces_of(line.parts.home, MARK) == []
    model = line.candidate(seed=2)
    release, _ = register(line.parts, line.product, model, line.verdict(model, line.model_of(line.clean)), REPORT)
    line.approve(release)
    line.promote(release)
    assert champion(line) == release.digest
    assert {link.status for link in verify(line.parts, release.digest, line.parts.signatures)} == {"ok"}


def test_a_revoked_release_comes_back_on_no_path(line):
    approval = line.signed(line.release(seed=3, champion=line.model_of(line.tainted)))
    waiting = approval.release
    assert awaiting_approval(line.parts) == [waiting]
    line.erase()
    assert awaiting_approval(line.parts) == []
    assert latest_registered(line.parts, NAME) == line.clean.digest
    for release in (waiting, line.tainted.digest):
        with pytest.raises(Refused, match="revoked"):
            promote(line.parts, line.product, release, line.ask())
        with pytest.raises(Refused, match="revoked"), challenging(line.parts, line.product, release):
            pass
    with pytest.raises(Refused, match="revoked"):
        accept(line.parts, line.product, approval)
    model = line.model_of(line.tainted)
    with pytest.raises(Refused, match="learned from 9 rows of data set"):
        register(line.parts, line.product, model, line.verdict(model, line.model_of(line.clean)), REPORT)
    assert rollback(line.parts, line.product, "drill", actor="test").body["release"] is None
    assert line.tainted.digest not in (line.parts.home / "routes.json").read_text()


def test_the_gateway_follows_at_the_revocation_before_anything_else(line, monkeypatch):
    view = RouteView(line.parts, lambda: [line.product])
    assert view.route(NAME)[1].champion == line.tainted.digest
    with monkeypatch.context() as crash:
        fails(crash, erasure, "reconcile", 1)
        with pytest.raises(PowerLoss):
            line.erase()
    assert view.route(NAME)[1].champion == line.clean.digest


def test_clients_of_the_gateway_get_the_clean_release_on_the_next_request(line):
    def answered(url: str) -> str:
        body = {"model": NAME, "messages": [{"role": "user", "content": "hello"}]}
        key = {"authorization": f"Bearer {create_key(line.parts.home, line.product.tenant)}"}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=key, trust_env=False, timeout=30)
        return answer.json()["assay"]["release"]

    with fake_vllm(FakeVllm(line.base)) as server:
        line.parts.__dict__["server"] = server
        gateway = make_gateway(line.parts, lambda: [line.product], reconcile_seconds=0.2)
        with running(gateway, free_ports(1)[0]) as url:
            assert answered(url) == line.tainted.digest
            line.erase()
            assert answered(url) == line.clean.digest
            assert served_name(line.tainted.weights) not in server.loaded()
            assert server.asked[-1]["model"] == served_name(line.clean.weights)


def test_a_registry_that_is_down_keeps_the_receipt_back_and_not_the_route(line):
    line.parts.registry.down = True
    with pytest.raises(ConnectionError):
        line.erase()
    assert read_routes(line.parts.home).of(NAME).champion == line.clean.digest
    assert "erasure.completed" not in events(line)
    assert [each.state for each in listed(line.parts)] == ["waiting"]
    line.parts.registry.down = False
    assert len(erasure_queue.work_off(line.parts, [line.product], lambda name: [40.0])) == 1
    erased_whole(line)


STEPS = [
    ("log", "append", 1, "after"),
    ("keyring", "delete", 1, "after"),
    (dataset_store, "_write", 1, "before"),
    (dataset_store, "_write", 5, "after"),
    (erasure, "forget_runs", 1, "before"),
    (erasure, "forget_copies", 1, "after"),
    ("log", "append", 2, "before"),
    ("log", "append", 2, "after"),
    ("store", "delete", 1, "after"),
    ("server", "pin", 1, "before"),
    ("registry", "set_alias", 1, "before"),
    (routes, "_write", 1, "after"),
    ("log", "append", 3, "after"),
    ("log", "append", 4, "before"),
    ("log", "append", 4, "after"),
]


@pytest.mark.parametrize(("owner", "name", "at", "when"), STEPS, ids=[f"{s[3]}-{s[1]}-{s[2]}" for s in STEPS])
def test_a_crash_at_any_step_is_finished_by_doing_it_again(line, monkeypatch, owner, name, at, when):
    line.leave_behind()
    with monkeypatch.context() as crash:
        fails(crash, getattr(line.parts, owner) if isinstance(owner, str) else owner, name, at, when == "after")
        with pytest.raises(PowerLoss):
            line.erase()
    line.erase()
    erased_whole(line)


@pytest.mark.parametrize("at_work", ["scrubbed", "deduplicated"])
def test_a_step_at_work_meanwhile_writes_no_row_of_the_person(line, monkeypatch, at_work):
    """It has read the rows when the erasure comes, which waits for nothing and leaves nothing. The scrub names its rows
    anew, and finds no key; the other finds out when it writes."""
    line.write_source(with_person=True)
    source = line.folder / "source.jsonl"
    source.write_text(source.read_text().replace("since June", "since May"))
    manifest, _ = steps.raw(line.parts, line.product)
    for name in ("contracted", "ledgered", "scrubbed")[: 2 if at_work == "scrubbed" else 3]:
        manifest, _ = getattr(steps, name)(line.parts, line.product, manifest)
    assert traces_of(line.parts.home, "since May")
    quick, copies = QuickAnalyzer.find, deduplicate.copies
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(QuickAnalyzer, "find", lambda *given: line.erase() and quick(*given))
        meanwhile.setattr(deduplicate, "copies", lambda *given: line.erase() and copies(*given))
        with pytest.raises(Refused, match="run the step again, which leaves"):
            getattr(steps, at_work)(line.parts, line.product, manifest)
    erased_whole(line)
    line.run_data()
    assert traces_of(line.parts.home, MARK) == []


def test_a_training_under_way_leaves_no_checkpoint(line):
    class Trainer:
        def launch(self, job_file: Path, run_dir: Path) -> None:
            assert MARK in "".join(path.read_text() for path in (run_dir / "rows").iterdir())
            line.erase()
            assert not run_dir.exists()
            (run_dir / "weights").mkdir(parents=True)  # it had the rows in memory and goes on

    with pytest.raises(Refused, match="erased meanwhile: run the line again"):
        sft(line.parts, line.product, line.base, line.splits, Trainer())
    assert list((line.parts.home / "training").iterdir()) == []
    erased_whole(line)


@pytest.mark.parametrize(
    ("failure", "told"),
    [(RuntimeError("out of memory"), r"erased meanwhile.*ended with: out of memory"), (KeyboardInterrupt(), "^$")],
)
def test_why_a_training_under_way_ended_is_not_hidden(line, failure, told):
    class Trainer:
        def launch(self, job_file: Path, run_dir: Path) -> None:
            line.erase()
            (run_dir / "weights").mkdir(parents=True)
            raise failure

    with pytest.raises((Refused, KeyboardInterrupt), match=told) as raised:
        sft(line.parts, line.product, line.base, line.splits, Trainer())
    assert failure in (raised.value, raised.value.__cause__)
    assert list((line.parts.home / "training").iterdir()) == []


def test_two_at_once_erase_once(line):
    with ThreadPoolExecutor(2) as pool:
        answers = [each.result() for each in [pool.submit(line.erase), pool.submit(line.erase)]]
    assert {again for _, again in answers} == {False, True}
    assert answers[0][0] == answers[1][0]
    erased_whole(line)


def test_an_unknown_person_is_named_by_pseudonym_and_nothing_is_recorded(line):
    records = len(events(line))
    with pytest.raises(Missing, match="nothing was done"):
        erasure.erase(line.parts, [line.product], "0" * 32, REASON, lambda name: [])
    assert len(events(line)) == records


def test_another_persons_data_stay_as_they_were(line):
    before = {i.name: i.text for i in line.parts.datasets.read(line.splits.root) if i.subject != line.subject}
    line.erase()
    after = {item.name: item.text for item in line.parts.datasets.read(line.splits.root)}
    assert after == before
    assert len(after) > 5


def test_content_that_is_put_back_after_the_receipt_is_told(line):
    shard = line.parts.home / "rows" / hex_of(line.splits.root) / "rows-00000.parquet"
    kept = shard.read_bytes()
    line.erase()
    shard.write_bytes(kept)
    with pytest.raises(Refused, match="there again"):
        listed(line.parts)
    broken = [
        link for link in verify(line.parts, line.tainted.digest, line.parts.signatures) if link.status == "broken"
    ]
    assert "content is still there" in broken[0].detail


def test_the_queue_is_emptied_and_junk_is_set_aside(line):
    path = erasure_queue.submit(line.parts, line.subject, REASON)
    (path.parent / "junk.json").write_text("{}")
    assert PERSON not in path.read_text()
    (receipt,) = erasure_queue.work_off(line.parts, [line.product], lambda name: [])
    assert receipt.reason == REASON
    assert sorted(each.name for each in path.parent.iterdir()) == ["junk.refused"]
    assert erasure_queue.work_off(line.parts, [line.product], lambda name: []) == []
    assert traces_of(line.parts.home, MARK) == []
