"""Which worker runs which tests: groups that share what they start, and no more than two with servers."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

# Each of these starts servers for all of its tests, which only one worker should do.
TOGETHER = ("deploy", "faults", "e2e")
# They start the whole product.
WHOLE_STACKS = (*TOGETHER, "integration/native", "integration/monitoring")
# Three workers with servers take two cores from each other until tests end at their time limits; two leave a
# sixth of them unused, while they wait.
MOST_WITH_SERVERS = 2
# What takes longest begins first, so that no worker is left with it at the end.
FIRST = (*WHOLE_STACKS, "integration/gateway", "integration", "unit/prometheus")


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # the library has no types
    """Gives each group of tests to one worker: a suite, else a package, else the tests of a folder.

    Workers beyond `MOST_WITH_SERVERS` only have the groups that start no servers, and end when none is left.
    """

    def schedule(self) -> None:
        """Hand out the first groups, and so the servers, in the order of the workers' names."""
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
        if [*self.assigned_work].index(node) >= MOST_WITH_SERVERS:
            light = next((group for group in self.workqueue if not _has_servers(group)), None)
            if light is None:
                node.shutdown()
                return
            self.workqueue.move_to_end(light, last=False)
        super()._assign_work_unit(node)


def _has_servers(group: str) -> bool:
    return group in TOGETHER or group.startswith("integration/")
