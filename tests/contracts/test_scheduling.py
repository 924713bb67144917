"""The order in which workers get the groups of tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from support.scheduling import GroupScheduling

STACKS = ("deploy", "deploy/compose", "faults", "e2e", "integration/native")
OTHERS = ("integration/gateway", "integration/gateway/webhooks", "unit/chassis", "unit/chassis/egress")
TESTS = [f"tests/{folder}/test_a.py::test_{number}" for folder in (*STACKS, *OTHERS) for number in range(4)]


@dataclass(eq=False)
class FakeWorker:
    """Notes the tests that it is given, as a worker of pytest-xdist runs them."""

    gateway: SimpleNamespace
    given: list[str] = field(default_factory=list)
    done: int = 0
    shutting_down: bool = False

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.given += [TESTS[number] for number in numbers]

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def groups(self) -> list[str]:
        """Return the folders of the tests that were given, in their order."""
        return list(dict.fromkeys(one.partition("/")[2].rpartition("/")[0] for one in self.given))


def started(*names: str) -> tuple[GroupScheduling, list[FakeWorker]]:
    """Return a scheduler that has handed out the first groups, and its workers, who came in this order."""
    config = SimpleNamespace(
        getvalue=lambda _: ["popen"] * len(names), option=SimpleNamespace(loadscopereorder=False)
    )
    scheduling, workers = GroupScheduling(config), [FakeWorker(SimpleNamespace(id=name)) for name in names]
    for worker in workers:
        scheduling.add_node(worker)
        scheduling.add_node_collection(worker, TESTS)
    scheduling.schedule()
    return scheduling, sorted(workers, key=lambda one: one.gateway.id)


def finish_one(scheduling: GroupScheduling, worker: FakeWorker) -> None:
    scheduling.mark_test_complete(worker, TESTS.index(worker.given[worker.done]))
    worker.done += 1


def test_two_workers_have_the_servers_and_the_others_the_tests_without() -> None:
    scheduling, (first, second, third) = started("gw2", "gw0", "gw1")
    assert first.groups == ["deploy", "deploy/compose"]
    assert second.groups == ["faults"]
    assert third.groups == ["unit/chassis"]
    for _ in range(6):
        finish_one(scheduling, first)
    assert first.groups[2:] == ["e2e"]
    while third.done < len(third.given):
        finish_one(scheduling, third)
    assert third.groups == ["unit/chassis", "unit/chassis/egress"]
    assert third.shutting_down


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_test_is_run_once(number: int) -> None:
    scheduling, workers = started(*(f"gw{one}" for one in range(number)))
    while scheduling.has_pending:
        for worker in workers:
            if worker.done < len(worker.given):
                finish_one(scheduling, worker)
    assert sorted(one for worker in workers for one in worker.given) == sorted(TESTS)
