"""A model of a batch: it knows items and requests, and nothing of tables, chunks or claims."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

Ended = Literal["succeeded", "failed", "cancelled"]
Phase = Literal["open", "queued", "running", "paused", "cancelling", "over"]


@dataclass
class BatchModel:
    """One batch or task of `owner` with `size` items; `ended` are the items that have reached their end.

    `is_cut_short` tells that it was cancelled while its items arrived, `is_skipped` that it expired then.
    `retrying` is the filter of error codes of a retry whose items have not been taken yet. No more than
    `max_concurrency` of its items may be at work at a time, and no more than `rate` begin in a period.
    `payloads` are those that were sent, in order; the operation returns each as its result. Of the `rights`
    that it was accepted or retried with, its owner has lost none since.
    """

    id: UUID
    owner: str
    kind: Literal["batch", "task"]
    size: int
    tolerated: int | None = None
    operation: str = "echo"
    max_concurrency: int | None = None
    rate: int | None = None
    phase: Phase = "open"
    is_described: bool = False
    is_sealed: bool = False
    is_cancelled_early: bool = False
    stored: int = 0
    appended: int = 0
    payloads: list[int] = field(default_factory=list)
    ended: dict[int, Ended] = field(default_factory=dict)
    codes: dict[int, str] = field(default_factory=dict)
    has_started: bool = False
    is_lapsed: bool = False
    is_cut_short: bool = False
    is_skipped: bool = False
    has_failed_too_often: bool = False
    was_redriven: bool = False
    retrying: tuple[str, ...] | None = None
    endings: int = 0
    followings: int = 0
    rights: set[str] = field(default_factory=set)
    status_at_end: str = ""

    @property
    def status(self) -> str:
        """Return the status that the stored batch must have."""
        return self.status_at_end if self.phase == "over" else self.phase

    @property
    def was_cut(self) -> bool:
        """Return whether it was ever queued, and so has chunks and results."""
        return self.is_sealed and self.stored == self.size and not self.is_skipped and not self.is_cut_short

    @property
    def pending(self) -> set[int]:
        """Return the positions that have not ended."""
        return set(range(self.size)) - self.ended.keys()

    def count(self, ended: Ended) -> int:
        """Return the number of items that ended with this outcome."""
        return Counter(self.ended.values())[ended]

    def describe(self) -> None:
        """Note that the batch was described."""
        if not self.is_described:
            self.is_described = True
            if self.is_cancelled_early:
                self.cancel()

    def seal(self) -> None:
        """Note that the upload is sealed: no more items arrive."""
        self.is_sealed |= self.phase == "open" or self.is_cut_short
        self.queue_if_complete()

    def store(self, count: int) -> None:
        """Add items, unless the batch has expired."""
        if self.phase == "open" or self.is_cut_short:
            self.stored += count
        self.queue_if_complete()

    def queue_if_complete(self) -> None:
        """Queue the batch if all of its items have arrived."""
        if self.phase == "open" and self.is_described and self.is_sealed and self.stored == self.size:
            self.phase = "queued"

    def cancel(self) -> None:
        """Cancel the batch."""
        if self.phase == "open" and not self.is_described:
            self.is_cancelled_early = True
        elif self.phase == "open":
            self.is_cut_short = True
            self.end("cancelled")
        elif self.phase in ("queued", "running", "paused"):
            self.phase, self.retrying = "cancelling", None
            self.has_failed_too_often &= not self.pending
            self.end_if_done()

    def lapse(self) -> None:
        """Let the deadline of the batch pass."""
        if self.phase == "open":
            self.is_skipped = True
            self.end("expired")
        elif self.phase in ("queued", "running", "paused"):
            self.is_lapsed, self.has_failed_too_often = True, False
            self.cancel()

    def expire_upload(self) -> None:
        """Let the time limit of the upload pass."""
        if self.phase == "open":
            self.is_skipped = True
            self.end("expired")

    def pause(self) -> None:
        """Pause the batch."""
        if self.phase in ("queued", "running"):
            self.phase = "paused"

    def resume(self) -> None:
        """Resume the batch."""
        if self.phase == "paused":
            self.phase = "running" if self.has_started else "queued"

    def retry(self, codes: tuple[str, ...]) -> bool:
        """Retry failed items, if any has one of the codes and there is time; return whether they run."""
        has_failed = any(not codes or code in codes for code in self.codes.values())
        if self.is_lapsed or self.status not in ("completed", "failed", "cancelled") or not has_failed:
            return False
        self.phase, self.retrying = "queued", codes
        # What was cancelled because too many had failed stays so, for that reason.
        self.has_failed_too_often &= self.count("cancelled") > 0
        return True

    def redrive(self) -> None:
        """Queue the failed items of a retry."""
        if self.retrying is None:
            return
        taken = [n for n, code in self.codes.items() if not self.retrying or code in self.retrying]
        for position in taken:
            del self.ended[position], self.codes[position]
        self.was_redriven |= bool(taken)
        self.retrying = None
        self.end_if_done()

    def record(self, ended: dict[int, Ended], codes: dict[int, str], *, changes: bool) -> None:
        """Note the outcomes that a worker has stored."""
        if changes and self.phase == "queued":
            self.phase, self.has_started = "running", True
        self.ended |= ended
        self.codes |= codes
        self.has_started |= any(status != "cancelled" for status in ended.values())
        is_patient = self.tolerated is None or self.was_redriven or self.retrying is not None
        if not is_patient and self.phase in ("queued", "running", "paused"):
            self.has_failed_too_often = self.count("failed") > (self.tolerated or 0)
            self.phase = "cancelling" if self.has_failed_too_often else self.phase
        if changes:
            self.end_if_done()

    def end_if_done(self) -> None:
        """End the batch if all of its items have ended."""
        if self.phase in ("open", "over") or self.pending or self.retrying is not None:
            return
        if self.has_failed_too_often:
            self.end("failed")
        elif self.count("cancelled"):
            self.end("expired" if self.is_lapsed else "cancelled")
        else:
            self.end("failed" if self.kind == "task" and self.count("failed") else "completed")

    def end(self, status: str) -> None:
        """End the batch, and note its event and, if it was described, the task that follows."""
        self.phase, self.status_at_end = "over", status
        self.endings += 1
        self.followings += self.is_described
