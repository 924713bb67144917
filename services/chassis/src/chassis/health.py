"""Liveness and readiness: named checks that each return None, or why the service is not ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from chassis import beats, plain, redaction
from chassis.deadlines import Deadline

Check = Callable[[], str | None]

# The readiness check that succeeds once the service has started, and from then on.
STARTUP = "startup"

_LOOK_EVERY_S = 1.0
# After a process was suspended, its first look finds everything late.
_FAILED_LOOKS = 3


class Health:
    """The liveness and readiness of this process. Checks are cheap: they never wait for a dependency."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._vital: dict[str, Check] = {}
        self.draining = False
        self._stopping = asyncio.Event()
        self._stop_by = Deadline.after(0)

    def add(self, name: str, check: Check) -> None:
        """Register a readiness check, which returns None when all is well, else the reason."""
        self._checks[name] = check

    @property
    def is_starting(self) -> bool:
        """Whether the first start has not ended yet, which no later outage changes."""
        check = self._checks.get(STARTUP)
        return check is not None and check() is not None

    def add_vital(self, name: str, check: Check) -> None:
        """Register a check of liveness and readiness: a process that fails it exits and is restarted."""
        self._vital[name] = check
        self._checks[name] = check

    def stop(self, grace_s: float) -> Deadline:
        """Report not ready from now on; return the deadline of the stop, the same at each call.

        All steps of a stop share its grace period, and with it this deadline.
        """
        self.draining = True
        if not self._stopping.is_set():
            self._stop_by = Deadline.after(grace_s)
            self._stopping.set()
        return self._stop_by

    async def stopping(self) -> Deadline:
        """Wait until the service is stopped; return the deadline of the stop."""
        await self._stopping.wait()
        return self._stop_by

    async def failed(self) -> dict[str, str]:
        """Wait until the process fails its own liveness checks; return the reasons, by check."""
        failed_looks, failures = 0, self.failures()
        while failed_looks < _FAILED_LOOKS:
            await beats.following(_LOOK_EVERY_S)
            failures = self.failures()
            failed_looks = failed_looks + 1 if failures else 0
        return failures

    def failures(self) -> dict[str, str]:
        """Return the failures that a restart would fix, by check; no dependency can cause them."""
        return _reasons(self._vital)

    def reasons(self) -> dict[str, str]:
        """Return the reasons why the service is not ready, by check."""
        reasons = _reasons(self._checks)
        if self.draining:
            reasons["shutdown"] = "shutting down"
        return reasons


def _reasons(checks: Mapping[str, Check]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, check in checks.items():
        try:
            reason = check()
        except Exception as error:  # a broken check counts as a failure, and does not stop the others
            reason = f"the check failed: {redaction.safe_message(error)}"
        if reason is not None:
            found[name] = plain.text(reason)
    return found
