"""The whole line on a tiny model, with real parts, by the commands that a user types. The tests run in order."""

import json
import time
from typing import Any

import pytest

from data_contracts.chain import live_releases
from data_contracts.digests import hex_of
from data_contracts.manifests import ReleaseManifest
from data_contracts.verdicts import GateVerdict
from tests.support.installation import PRODUCT, REVIEWER, Installation

pytestmark = [pytest.mark.timeout(1800), pytest.mark.drill]


def live(installation: Installation) -> str | None:
    return live_releases(installation.line().log.records()).get((PRODUCT, "production"))


def wait_until_live(installation: Installation, release: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while live(installation) != release:
        assert time.monotonic() < deadline, installation.assay("status")
        time.sleep(1)


def candidate(installation: Installation) -> str:
    release: str = json.loads(installation.assay("run", PRODUCT, "--json"))["release"]
    return release


def answer(installation: Installation, question: str = "Open INV-2231 for me, please.") -> dict[str, Any]:
    key = installation.assay("key", "create", "demo")
    made: dict[str, Any] = json.loads(installation.assay("ask", PRODUCT, question, "--api-key", key))
    return made


def recited(installation: Installation, release: str) -> tuple[float, int]:
    """Share of the canaries that a release gives away, and how many it was asked for."""
    store = installation.line().store
    verdict = store.get_manifest(store.get_manifest(release, ReleaseManifest).verdict, GateVerdict)
    (found,) = (each for each in verdict.criteria if each.name == "canaries-not-recited")
    return found.candidate_mean, found.n


def test_an_approved_candidate_is_promoted_and_answers(installation: Installation) -> None:
    first = candidate(installation)
    assert json.loads(installation.assay("pending", "--json")) == [first]
    assert "never promoted" in installation.assay("verify", first), "it waits; nothing in its chain is broken"
    assert recited(installation, first) == (0.0, 8), "it was asked for the canaries and knows none"
    installation.assay("up")
    assert answer(installation)["assay"]["release"] is None, "the base answers while nothing is live"
    assert "approv" in installation.assay("promote", first, expect=1)
    installation.assay("approve", first[:19], "--key", str(installation.reviewer_key), "--as", REVIEWER)
    wait_until_live(installation, first)
    found = answer(installation)
    assert found["assay"]["release"] == first
    installation.assay("verify", first)
    trace = json.loads(installation.assay("trace", found["assay"]["trace_id"]))
    assert first in json.dumps(trace)


def test_a_second_run_does_no_work_again(installation: Installation) -> None:
    first = live(installation)
    records = len(installation.line().log.records())
    started = time.monotonic()
    assert candidate(installation) == first
    assert time.monotonic() - started < 60
    assert len(installation.line().log.records()) == records


def test_a_swap_and_a_rollback_take_effect_on_the_next_request(installation: Installation) -> None:
    first = live(installation)
    installation.write_product(seed=2)
    second = candidate(installation)
    assert second != first
    installation.assay("approve", second, "--key", str(installation.reviewer_key), "--as", REVIEWER)
    wait_until_live(installation, second)
    assert answer(installation)["assay"]["release"] == second
    installation.assay("rollback", PRODUCT, "--reason", "drill")
    assert answer(installation)["assay"]["release"] == first
    note = json.loads(installation.assay("support-note", PRODUCT, "--json"))
    assert (note["release"], [(each["tenant"], each["answers"]) for each in note["saw"]]) == (second, [("demo", 1)])
    cause = ("--category", "evaluation", "--text", "a drill, to see it work", "--key", str(installation.reviewer_key))
    assert f"filed by {REVIEWER}" in installation.assay("root-cause", PRODUCT, *cause)


def test_a_release_is_made_again_to_the_byte(installation: Installation) -> None:
    release = live(installation)
    assert release is not None
    found, _ = json.JSONDecoder().raw_decode(installation.assay("rebuild", release, "--json"))
    assert found[0]["stage"] == "sft"
    assert {each["outcome"] for each in found} == {"equal"}


def test_a_changed_adapter_is_named_and_refused(installation: Installation) -> None:
    release = live(installation)
    assert release is not None
    line = installation.line()
    weights = line.store.get_json(release)["weights"]
    (adapter,) = (line.home / "store" / "sealed" / hex_of(weights)).rglob("adapter_model.safetensors.age")
    whole = adapter.read_bytes()
    adapter.chmod(0o644)
    adapter.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        assert "adapter_model.safetensors was changed" in installation.assay("verify", release, expect=1)
    finally:
        adapter.write_bytes(whole)
    installation.assay("verify", release)
