"""What is left of the rights that came with work, whatever its owner lost and got back before and since."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from batch_processor.rights.lost_rights import KNOWN_WITHIN, Loss, held

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALL = ("a", "b", "c")
SECONDS = st.integers(0, 60)


def rights_at(changes: list[Loss], at: datetime) -> set[str]:
    left = set(ALL)
    for change in changes:
        left = set(change.scopes_left) if change.lost_at <= at else left
    return left


@given(
    gaps=st.lists(st.tuples(st.integers(1, 20), st.sets(st.sampled_from(ALL))), max_size=5),
    accepted_s=SECONDS,
    late_s=st.integers(0, 5),
)
def test_work_has_at_most_the_rights_of_each_moment_since_it_was_accepted_and_no_fewer_without_need(
    gaps: list[tuple[int, set[str]]], accepted_s: int, late_s: int
) -> None:
    changes, at = [], START
    for gap_s, left in gaps:
        at += timedelta(seconds=gap_s)
        changes.append(Loss("ann", at, sorted(left)))
    accepted_at = START + timedelta(seconds=accepted_s)
    # The gateway may have looked its rights up some seconds before.
    scopes = rights_at(changes, accepted_at - timedelta(seconds=late_s))
    since = [change for change in changes if change.lost_at >= accepted_at]
    left = set(held(sorted(scopes), changes, since=accepted_at) or ())
    for moment in (accepted_at, *(change.lost_at for change in since)):
        assert left <= rights_at(changes, moment)
    is_settled = not any(accepted_at - KNOWN_WITHIN <= change.lost_at <= accepted_at for change in changes)
    if is_settled:
        assert left == scopes.intersection(*(change.scopes_left for change in since))


def test_of_rights_that_are_not_known_those_are_left_that_no_loss_took() -> None:
    losses = [Loss("ann", START, ["a", "b"]), Loss("ann", START, ["b", "c"])]
    assert held(None, losses, since=START) == ["b"]
    assert held(None, [], since=START) is None
