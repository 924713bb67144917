"""The harness notices a guard that is off: otherwise it would prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import neighbours
from faults.guests import BY_NAME
from faults.mutations import MUTATIONS, Mutation, guarded, noticed, unguarded
from faults.unguarding import PATCHES


def test_every_mutation_has_a_guest_and_a_way_to_switch_its_guard_off() -> None:
    assert len({one.guard for one in MUTATIONS}) == len(MUTATIONS) >= 12
    assert {one.guest for one in MUTATIONS} <= set(BY_NAME)
    assert {one.guard for one in MUTATIONS if not one.settings} == set(PATCHES)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.guard)
async def test_a_guard_that_is_off_is_noticed(tmp_path: Path, mutation: Mutation) -> None:
    row = await unguarded(tmp_path, mutation)
    print(neighbours.report(row))
    assert noticed(mutation, row)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "mutation",
    [one for one in MUTATIONS if one.conditions or one.limits_mib],
    ids=lambda one: one.guard,
)
async def test_the_conditions_of_a_mutation_break_no_promise_while_the_guard_is_on(
    tmp_path: Path, mutation: Mutation
) -> None:
    row = await guarded(tmp_path, mutation)
    print(neighbours.report(row))
    # A slow machine alone may break the promises of which noise can be the cause.
    assert [one.text for one in row.complaints if one.what in mutation.notices and one.is_certain] == []
