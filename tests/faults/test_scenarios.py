"""The short selection of scenarios, under a smaller load than `make faults` brings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from faults import scenario as running
from faults.load import WorkCounts
from faults.rig import Rig
from faults.scenario import Scenario
from faults.scenarios import SCENARIOS

_SEED = 7


def test_every_scenario_has_a_name_of_its_own() -> None:
    assert len({one.name for one in SCENARIOS}) == len({one.title for one in SCENARIOS}) == len(SCENARIOS)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one.is_quick], ids=lambda one: one.name)
async def test_nothing_accepted_is_lost(rig: Rig, scenario: Scenario) -> None:
    small = replace(scenario, counts=WorkCounts(mails=60, tasks=30, batches=4))
    row = await running.run(rig, small, seed=_SEED)
    print(f"seed {_SEED}: {row.balance}; {row.answers.summary()}; recovered in {row.recovery_s:.1f} s")
    assert row.complaints == ()
    assert row.balance.accepted == small.counts.total
