"""Liveness and readiness: named checks that each say nothing, or why the service is not ready."""

from __future__ import annotations

from collections.abc import Callable

Check = Callable[[], str | None]


class Health:
    """What this process reports. Checks are cheap look-ups of state: they never wait for a dependency."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._vital: dict[str, Check] = {}
        self.draining = False

    def add(self, name: str, check: Check) -> None:
        """Register a readiness check; it gives None when all is well, else the reason."""
        self._checks[name] = check

    def add_vital(self, name: str, check: Check) -> None:
        """Register a check of liveness and readiness: a process that fails it ends, to be started again."""
        self._vital[name] = check
        self._checks[name] = check

    def failures(self) -> dict[str, str]:
        """What a restart would mend, by check; no dependency can cause it."""
        found = {name: check() for name, check in self._vital.items()}
        return {name: reason for name, reason in found.items() if reason is not None}

    def reasons(self) -> dict[str, str]:
        """What keeps the service from being ready, by check."""
        found = {name: check() for name, check in self._checks.items()}
        reasons = {name: reason for name, reason in found.items() if reason is not None}
        if self.draining:
            reasons["shutdown"] = "shutting down"
        return reasons
