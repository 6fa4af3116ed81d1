"""Every part of a standing installation is killed while sixteen clients ask, once in the midst of a swap, and all comes
back without a hand. The tests run in order."""

import json
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from data_contracts.digests import hex_of
from pipelines.recipes.product import ROOT
from pipelines.stages.serve.routes import read_routes
from resources.adapters import served_name
from tests.support.installation import PRODUCT, REVIEWER, Installation, tiny_installation
from tests.support.kills import HEAD, Kill, Standing, ask, until

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.drill,
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow", "ignore::DeprecationWarning"),
]
PARTS = ("vllm", "gateway", "mlflow", "dagster", "daemon")
CAUSE = ("--category", "evaluation", "--text", "a drill, to see it work")


class Swapped(NamedTuple):
    """A standing installation with two releases of which the second is live."""

    standing: Standing
    first: str
    second: str

    @property
    def made(self) -> Installation:
        return self.standing.installation

    def roll_back(self) -> None:
        """From the second to the first by another process; returns when that is recorded, and not yet projected."""
        arguments = self.made.command("rollback", PRODUCT, "--reason", "a drill")
        run = partial(subprocess.run, arguments, cwd=ROOT, env=self.made.environment, stdout=subprocess.DEVNULL)
        threading.Thread(target=run, daemon=True).start()
        until(lambda: self.standing.champion() == self.first, "the rollback was recorded")

    def promote(self) -> None:
        """The second again, by a run of Dagster; returns when it is the challenger."""
        self.made.assay("root-cause", PRODUCT, *CAUSE, "--key", str(self.made.reviewer_key))
        self.made.assay("approve", self.second, "--key", str(self.made.reviewer_key), "--as", REVIEWER)
        until(self._is_challenged, "the promotion began")

    def has_tried(self) -> bool:
        """Whether the promotion was recorded, or its canary failed."""
        if self.standing.champion() == self.second:
            return True
        last = next(
            each for each in reversed(self.standing.records()) if each.event in ("approval.accepted", "canary.recorded")
        )
        return last.body.get("outcome") == "fail"

    def _is_challenged(self) -> bool:
        route = read_routes(self.standing.line.home).of(PRODUCT)
        return route is not None and route.live_challenger() == self.second


def is_live(standing: Standing, release: str) -> bool:
    return standing.champion() == release


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swapped]:
    made = tiny_installation(tmp_path_factory.mktemp("kills"))
    try:
        releases = []
        for seed in (1, 2):
            made.write_product(seed=seed)
            releases.append(json.loads(made.assay("run", PRODUCT, "--json"))["release"])
            made.assay("up")
            made.assay("approve", releases[-1], "--key", str(made.reviewer_key), "--as", REVIEWER)
            standing = Standing(made)
            until(partial(is_live, standing, releases[-1]), "the release was live")
        yield Swapped(Standing(made), *releases)
    finally:
        made.assay("down")


def test_killed_under_load(swapped: Swapped) -> None:
    report(swapped, [swapped.standing.kill(part, "under load") for part in PARTS])
    assert swapped.standing.champion() == swapped.second


@pytest.mark.parametrize("part", PARTS)
def test_killed_in_the_midst_of_a_swap(swapped: Swapped, part: str) -> None:
    """What was recorded stays. A promotion whose canary failed by the kill is asked for again."""
    standing = swapped.standing
    rolled_back = standing.kill(part, "in a rollback", swapped.roll_back)
    assert standing.champion() == swapped.first
    promoted = standing.kill(part, "in a promotion", swapped.promote)
    report(swapped, [rolled_back, promoted])
    until(swapped.has_tried, "the promotion was recorded, or its canary failed")
    print(f"after the promotion: {[record.event for record in standing.records()[-2:]]}")
    swapped.made.assay("promote", swapped.second)
    assert standing.champion() == swapped.second


def report(swapped: Swapped, kills: list[Kill]) -> None:
    print("\n" + HEAD)
    for kill in kills:
        print(kill.row())
    for kill in kills:
        assert swapped.standing.wrong(kill.seen) == []
        if kill.part not in ("gateway",):
            assert [each for each in kill.seen if each.kind == "cut"] == [], kill.part
        if kill.part not in ("gateway", "vllm"):
            assert {each.kind for each in kill.seen} == {"answered"}, kill.part
    champion = swapped.standing.champion()
    assert champion is not None
    swapped.made.assay("verify", champion)


def test_a_champion_whose_bytes_changed_while_vllm_was_down_is_not_served_until_they_are_right(
    swapped: Swapped,
) -> None:
    standing = swapped.standing
    champion = standing.champion()
    assert champion is not None
    sealed = Path(standing.line.store.root) / "sealed" / hex_of(standing.adapter(champion))
    (file,) = sealed.rglob("adapter_model.safetensors.age")
    right = file.read_bytes()
    with httpx.Client(
        base_url=standing.line.gateway_url, headers={"authorization": f"Bearer {standing.key}"}, timeout=300
    ) as client:
        (server,) = standing.processes("vllm")
        server.kill()
        file.chmod(0o644)
        file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        try:
            for stream in (False, True):
                seen = ask(client, stream)
                assert (seen.kind, seen.release) == ("fell back", None), seen
                assert "does not match what was approved" in seen.detail
            assert served_name(standing.adapter(champion)) not in standing.line.server.loaded()
        finally:
            file.write_bytes(right)
        until(lambda: ask(client, stream=False).release == champion, "the champion answered again")
        swapped.made.assay("verify", champion)
