"""A person is erased from a line with real parts while clients ask: a trained adapter is live, and is taken off."""

import json
from collections.abc import Iterator

import pytest

from pipelines.stages.data.generate import generated
from pipelines.stages.release.approval import accept, pending
from tests.support.drill import Clients, Drill, killed_rounds
from tests.support.installation import PRODUCT, REVIEWER, Installation, tiny_installation

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.drill,
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow", "ignore::DeprecationWarning"),
]
PERSON = "customer-c0080"


@pytest.fixture(scope="module")
def clean_and_drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Drill]]:
    """Two releases went live: of one that never saw the person, and of one that learned from its rows."""
    folder = tmp_path_factory.mktemp("erasure")
    made = tiny_installation(folder)
    try:
        clean = released(made, with_person=False)
        tainted = released(made, with_person=True)
        assert clean != tainted
        yield clean, Drill(made, PRODUCT, PERSON, folder / "kept")
    finally:
        made.assay("down")


def released(made: Installation, with_person: bool) -> str:
    rows = [row for row in generated("billing-conversations").splitlines() if with_person or PERSON.encode() not in row]
    source = made.folder / "conversations.jsonl"
    source.write_bytes(b"\n".join(rows))
    pairs = {"url": "generated://billing-preferences", "contract": "billing-preferences", "kind": "preference"}
    made.write_product(seed=1, sources=[{"url": str(source), "contract": "billing-conversations"}, pairs])
    release: str = json.loads(made.assay("run", PRODUCT, "--json"))["release"]
    made.assay("approve", release, "--key", str(made.reviewer_key), "--as", REVIEWER)
    line = made.line()
    line.supervisor.up(["gateway"])
    for approval in pending(line):
        accept(line, line.product(PRODUCT), approval)
    made.assay("promote", release)
    return release


def test_a_person_is_erased_while_clients_ask(clean_and_drill: tuple[str, Drill]) -> None:
    clean, drill = clean_and_drill
    assert {path.split("/")[0] for path in drill.held_before} == {"rows"}, "what is looked for below is found before"
    drill.set_back()
    with Clients(drill) as clients:
        clients.wait_for_more()
        drill.erase()
        clients.wait_for_more()
    receipt = drill.check(clean, clients.answers)
    assert receipt.retraining[0].effort_seconds is not None
    assert {answer.release for answer in clients.answers} == {drill.tainted, clean}
    assert "revoked" in drill.installation.assay("promote", drill.tainted, expect=1)
    signing = ("approve", drill.tainted, "--key", str(drill.installation.reviewer_key), "--as", REVIEWER)
    assert "revoked" in drill.installation.assay(*signing, expect=1)
    drill.installation.assay("verify", clean)


def test_killed_at_ten_random_moments(clean_and_drill: tuple[str, Drill]) -> None:
    clean, drill = clean_and_drill
    drill.set_back()
    seconds = drill.erase()
    done = killed_rounds(drill, clean, rounds=10, seconds=seconds, seed=118)
    print(f"an erasure took {seconds:.2f} s")
    for killed, finished in done:
        print(f"killed after {killed.after:.2f} s, at {killed.event}; finished in {finished:.1f} s")
    assert len({killed.event for killed, _ in done}) > 1
