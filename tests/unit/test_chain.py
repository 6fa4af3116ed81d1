from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.chain import (
    GENESIS,
    AuditRecord,
    ChainBroken,
    check_chain,
    head_at,
    live_releases,
    live_stack,
    revoked_releases,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def chain(bodies: list[dict[str, object]], event: str = "drift.recorded") -> list[AuditRecord]:
    records: list[AuditRecord] = []
    for number, body in enumerate(bodies):
        previous = records[-1].digest if records else GENESIS
        time = START + timedelta(seconds=number)
        fields = {"sequence": number, "previous": previous, "time": time, "actor": "test", "event": event}
        records.append(AuditRecord.model_validate({**fields, "product": "p", "body": body}))
    return records


bodies = st.lists(st.fixed_dictionaries({"n": st.integers(0, 9)}), min_size=1, max_size=8)


@given(bodies)
def test_an_intact_chain_has_the_head_of_its_last_record(written):
    records = chain(written)
    assert check_chain(records) == records[-1].digest == head_at(records, len(records) - 1)


@given(bodies, st.data())
def test_an_edit_anywhere_shows(written, data):
    records = chain(written)
    head = records[-1].digest
    at = data.draw(st.integers(0, len(records) - 1))
    change = data.draw(
        st.sampled_from(
            [{"body": {"n": 10}}, {"actor": "other"}, {"product": "q"}, {"time": START - timedelta(days=1)}]
        )
    )
    records[at] = records[at].model_copy(update=change)
    if at == len(records) - 1:
        assert check_chain(records) != head
    else:
        with pytest.raises(ChainBroken, match=f"record {at + 1} does not follow record {at}"):
            check_chain(records)


@given(bodies.filter(lambda all: len(all) > 1), st.data())
def test_a_removed_a_repeated_and_a_moved_record_show(written, data):
    records = chain(written)
    at = data.draw(st.integers(0, len(records) - 2))
    with pytest.raises(ChainBroken, match=f"record {at} is missing"):
        check_chain(records[:at] + records[at + 1 :])
    with pytest.raises(ChainBroken):
        check_chain([*records[: at + 1], records[at], *records[at + 1 :]])
    with pytest.raises(ChainBroken):
        check_chain([*records[:at], records[at + 1], records[at], *records[at + 2 :]])


@given(bodies, st.data())
def test_a_cut_chain_is_intact_but_lost_its_head(written, data):
    """Truncation cannot be seen from inside: that is why heads are signed and kept outside."""
    records = chain(written)
    kept = data.draw(st.integers(0, len(records) - 1))
    assert check_chain(records[:kept]) != records[-1].digest
    assert head_at(records[:kept], len(records) - 1) is None


def test_what_is_live_is_what_the_newest_promotion_or_rollback_says():
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    promoted = [{"environment": "production", "release": each} for each in (first, second)]
    records = chain(promoted, "promotion.recorded")
    assert live_releases(records) == {("p", "production"): second}
    back = records[-1].model_copy(
        update={"event": "rollback.recorded", "body": {"environment": "production", "release": None}}
    )
    assert live_releases([*records, back]) == {}
    assert live_stack(records, "p", "production") == [None, first, second]
    assert live_stack([*records, back], "p", "production") == [None]
    assert live_stack(records, "p", "staging") == [None]


@given(st.lists(st.tuples(st.sampled_from(["promote", "back", "revoke"]), st.integers(1, 4)), max_size=30))
def test_what_was_revoked_is_never_live_and_no_rollback_leads_to_it(acts):
    """Each act as the line would chain it: no revoked release is promoted, a rollback goes to the one below."""
    records, revoked = [], set()
    for act, number in acts:
        release = "sha256:" + str(number) * 64
        stack = live_stack(records, "p", "production")
        if act == "promote" and release not in revoked and stack[-1] != release:
            event, target = "promotion.recorded", release
        elif act == "back" and len(stack) > 1:
            event, target = "rollback.recorded", stack[-2]
        elif act == "revoke":
            event, target = "release.revoked", release
            revoked.add(release)
        else:
            continue
        (record,) = chain([{"environment": "production", "release": target}], event)
        records.append(record)
        after = live_stack(records, "p", "production")
        assert not revoked.intersection(after)
        assert after[0] is None
        assert all(one != other for one, other in pairwise(after))
        assert live_releases(records).get(("p", "production")) == after[-1]
        if event == "rollback.recorded":
            assert after == stack[:-1]
    assert revoked_releases(records).keys() == revoked
