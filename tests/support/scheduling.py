"""Which worker runs which tests: groups that share what they start, and two whole stacks at a time."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

# Each of these starts servers for all of its tests, which only one worker should do.
TOGETHER = ("deploy", "faults", "e2e")
# They start the whole product. Three of them at once would take the processor of two cores from each other
# for so long that tests end at their time limits.
WHOLE_STACKS = (*TOGETHER, "integration/native", "integration/monitoring")
MOST_STACKS = 2
# What takes longest begins first, so that no worker is left with it at the end.
FIRST = (*WHOLE_STACKS, "integration/gateway", "integration", "unit/prometheus")


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # the library has no types
    """Gives each group of tests to one worker: a suite, else a package, else the tests of a folder.

    At most `MOST_STACKS` workers have a whole stack. The others meanwhile run tests of services, which wait
    for messages, restarts and outages more than for the processor.
    """

    def schedule(self) -> None:
        """Hand out the first groups, and so the whole stacks, in the order of the workers' names."""
        self.assigned_work: dict[Any, dict[str, dict[str, bool]]] = dict(
            sorted(self.assigned_work.items(), key=lambda one: one[0].gateway.id)
        )
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        _, suite, *folders = nodeid.partition("::")[0].split("/")[:-1]
        if suite in TOGETHER:
            return suite
        return "/".join((suite, *(folders[:1] if suite == "integration" else folders)))

    def _assign_work_unit(self, node: Any) -> None:
        under_way = [
            group
            for other, groups in self.assigned_work.items()
            for group, tests in groups.items()
            if other is not node and group in WHOLE_STACKS and not all(tests.values())
        ]
        if len(under_way) >= MOST_STACKS:
            others = (group for group in self.workqueue if group not in WHOLE_STACKS)
            self.workqueue.move_to_end(next(others, next(iter(self.workqueue))), last=False)
        super()._assign_work_unit(node)
