"""Why the event loop was blocked: a thread that logs where it is, and the long garbage collections."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import traceback
from typing import Any

from chassis import beats, logging, metrics

log = logging.get(__name__)

_BEAT_S = 0.5
# A garbage collection that takes longer is logged: nothing else of the process runs meanwhile.
LONG_COLLECTION_S = 0.1


class _Collections:
    """Measures garbage collections, and keeps the longest one until it is taken.

    It is called in the middle of whatever allocates memory, so it logs nothing itself.
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._longest: tuple[float, int] | None = None

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = time.monotonic()
            return
        took = time.monotonic() - self._began, info["generation"]
        self._longest = max(took, self._longest or took)

    def take(self) -> tuple[float, int] | None:
        """Return the seconds and the generation of the longest one since the last call."""
        longest, self._longest = self._longest, None
        return longest


class Watchdog:
    """Expects a heartbeat of the loop; when none comes for `stall_s` seconds, logs the loop's stack.

    Long garbage collections, in which no thread runs that could look at the stack, are logged after them.
    """

    def __init__(self, *, stall_s: float = 1.0) -> None:
        self._stall_s = stall_s
        self._last_beat = time.monotonic()
        self._loop_thread = threading.get_ident()
        self.stalled_for_s = 0.0

    async def run(self) -> None:
        """Send heartbeats, and measure how late each is, until cancelled; the thread watches meanwhile."""
        self._loop_thread = threading.get_ident()
        self._last_beat = time.monotonic()
        stopped, collections = threading.Event(), _Collections()
        gc.callbacks.append(collections)
        threading.Thread(target=self._watch, args=(stopped,), name="loop watchdog", daemon=True).start()
        try:
            while True:
                wait_s = beats.due_in_s(_BEAT_S)
                due_at = time.monotonic() + wait_s
                await asyncio.sleep(wait_s)
                self._last_beat = time.monotonic()
                metrics.LOOP_LAG.observe(max(0.0, self._last_beat - due_at))
                seconds, generation = collections.take() or (0.0, 0)
                if seconds > LONG_COLLECTION_S:
                    log.warning(
                        "a garbage collection stopped the process",
                        seconds=round(seconds, 2),
                        generation=generation,
                    )
        finally:
            gc.callbacks.remove(collections)
            stopped.set()

    def _watch(self, stopped: threading.Event) -> None:
        reported, wait_s = False, _BEAT_S
        while not stopped.wait(wait_s):
            self.stalled_for_s = max(0.0, time.monotonic() - self._last_beat - _BEAT_S)
            is_stalled = self.stalled_for_s > self._stall_s
            if is_stalled and not reported:
                metrics.LOOP_STALLS.inc()
                frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - documented
                stack = "".join(traceback.format_stack(frame)[-12:]) if frame else "unknown"
                # A frame holds all that its function had in hand, and the next stall may be days away.
                del frame
                stalled_for_s = round(self.stalled_for_s, 2)
                log.error("the event loop is blocked", stalled_for_s=stalled_for_s, stack=stack)
            reported = is_stalled
            # No stall can be reported before this; each look costs a wake.
            wait_s = max(_BEAT_S, self._last_beat + _BEAT_S + self._stall_s - time.monotonic())
