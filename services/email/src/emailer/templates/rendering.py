"""Rendering off the event loop: a few processes, each with one template at a time, at most one per owner."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from chassis import logging, metrics, threads
from chassis.deadlines import Deadline
from chassis.errors import DeadlineExceeded, Overloaded, TooManyAtOnce
from contracts.templates import RenderedTemplate, TemplateSource
from emailer.errors import TemplateFailed
from emailer.templates.recent import RecentCounts
from emailer.workers.processes import FrameTooLarge, NotAnswered, ProcessEnded, WorkerProcesses

log = logging.get(__name__)
T = TypeVar("T")

# CPU time for one template.
CPU_S = 2.0

# A process ends a template itself once its CPU time is used up; if there is no answer by now, it was starved.
ANSWER_WITHIN_S = 10.0
TURN_WITHIN_S = 20.0
# Of the time of a request, the rest of which is for its own work: its owner hears what it waits for, and not
# that nobody has answered in time.
_SHARE_FOR_TURN = 0.25
# Of what is left of it then: a preview must be answered within the time of its request.
_SHARE_FOR_ANSWER = 0.8
# A preview that has had so much processor time by then is slow by itself, however busy the machine is. A new
# process needs 0.2 s to start.
SLOW_CPU_S = 0.5
# A template that was too slow this often with the same data is not tried with it again for a while.
MOST_TOO_SLOW = 3
_NOT_TRIED_S = 600.0
_MOST_NOTED = 10_000
_NOTED_OF_OWNER = 300
# A template that is interrupted repeatedly is tried at longer and longer intervals.
_LONGEST_WAIT_S = 300.0
_MOST_FRAME = 8 << 20


class _InterruptedError(Exception):
    """A process could not finish for a reason outside the template, which the message states."""


class TemplateRenderer:
    """Renders templates in at most `size` processes, which start when they are first needed.

    Each template may use `cpu_s` seconds of CPU time.
    """

    def __init__(self, *, size: int = 2, cpu_s: float = CPU_S) -> None:
        self._cpu_s = cpu_s
        self._turns = asyncio.Semaphore(size)
        self._processes = WorkerProcesses("emailer.templates.worker")
        self._owners: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._too_slow = RecentCounts(most=_MOST_NOTED, of_owner=_NOTED_OF_OWNER, age_s=_NOT_TRIED_S)
        self._interrupted = RecentCounts(
            most=_MOST_NOTED, of_owner=_NOTED_OF_OWNER, age_s=2 * _LONGEST_WAIT_S
        )
        # Series that alerts use must exist from the start: `rate` does not see a series that begins at 1.
        for outcome in ("rendered", "interrupted", "template-too-slow", "template-too-large"):
            metrics.EMAIL_TEMPLATES.labels(outcome)

    @property
    def processes(self) -> tuple[asyncio.subprocess.Process, ...]:
        """The processes that are running now."""
        return self._processes.processes

    async def check(self, source: TemplateSource, *, owner_id: str, until: Deadline) -> None:
        """Raise `TemplateFailed` unless each part of `source` is a valid template, else as `preview` does."""
        await self._ask(source, None, owner_id=owner_id, until=until)

    async def preview(
        self, source: TemplateSource, data: Mapping[str, Any], *, owner_id: str, until: Deadline
    ) -> RenderedTemplate:
        """Return `source` rendered with `data` like `render`, without any effect on later mails.

        Raise `TooManyAtOnce` when other templates of the owner leave too little of the time `until` then.
        """
        answer = await self._ask(source, data, owner_id=owner_id, until=until)
        return RenderedTemplate.model_validate(answer["rendered"])

    async def render(
        self, source: TemplateSource, data: Mapping[str, Any], *, owner_id: str
    ) -> RenderedTemplate:
        """Return `source` rendered with `data`.

        Raise `TemplateFailed` when it cannot be rendered, and `Overloaded` when it cannot be rendered now.
        """
        key = await _in_thread(
            lambda: hashlib.sha256(json.dumps([owner_id, source.model_dump(), data]).encode()).digest(),
            owner_id=owner_id,
        )
        count = self._too_slow.count(key, owner_id=owner_id)
        if count >= MOST_TOO_SLOW:
            detail = f"it was too slow {count} times, and is not tried again for a while"
            raise TemplateFailed("template-too-slow", detail)
        try:
            answer = await self._ask(source, data, owner_id=owner_id, key=key)
        except TemplateFailed as error:
            if error.code == "template-too-slow":
                self._too_slow.note(key, owner_id=owner_id)
            raise
        self._too_slow.forget(key, owner_id=owner_id)
        return RenderedTemplate.model_validate(answer["rendered"])

    async def close(self) -> None:
        """End all processes."""
        await self._processes.close()

    async def _ask(
        self,
        source: TemplateSource,
        data: Mapping[str, Any] | None,
        *,
        owner_id: str,
        key: bytes | None = None,
        until: Deadline | None = None,
    ) -> dict[str, Any]:
        own = self._owners.get(owner_id)
        if own is None:
            own = self._owners[owner_id] = asyncio.Lock()
        within_s = TURN_WITHIN_S if until is None else _SHARE_FOR_TURN * until.remaining_s()
        has_own = False
        try:
            async with asyncio.timeout(within_s) as waiting, own:
                has_own = True
                # Before the turn, so that no other owner waits for this one's thread.
                frame = await _in_thread(
                    lambda: json.dumps(
                        {"source": source.model_dump(), "data": data, "cpu_s": self._cpu_s}
                    ).encode(),
                    owner_id=owner_id,
                )
                async with self._turns:
                    waiting.reschedule(None)
                    answer = await self._answer(frame, until)
        except TimeoutError:
            if until is not None and not has_own:
                raise TooManyAtOnce(
                    "Other templates of yours are being rendered; wait for them to end.", retry_after_s=2
                ) from None
            raise _too_many() from None
        except _InterruptedError as error:
            metrics.EMAIL_TEMPLATES.labels("interrupted").inc()
            count = 1 if key is None else self._interrupted.note(key, owner_id=owner_id)
            wait_s = min(_LONGEST_WAIT_S, 2.0**count)
            log.warning(
                "template could not be rendered", owner_id=owner_id, reason=str(error), retry_after_s=wait_s
            )
            raise Overloaded(
                f"The template was not rendered, because {error}; try again.", retry_after_s=wait_s
            ) from None
        if key is not None:
            self._interrupted.forget(key, owner_id=owner_id)
        code = answer.get("code")
        metrics.EMAIL_TEMPLATES.labels(code or "rendered").inc()
        if code:
            raise TemplateFailed(code, answer["detail"], part=answer["part"], line=answer["line"])
        return answer

    async def _answer(self, frame: bytes, until: Deadline | None) -> dict[str, Any]:
        within_s = ANSWER_WITHIN_S
        if until is not None:
            within_s = min(within_s, _SHARE_FOR_ANSWER * until.remaining_s())
        try:
            found = await self._processes.ask(frame, within_s=within_s, most_bytes=_MOST_FRAME)
        except FrameTooLarge:
            return _failure("template-too-large", "it is too large")
        except NotAnswered as late:
            if until is not None and late.cpu_s >= SLOW_CPU_S:
                taken = f"it took {late.cpu_s:.1f} s of CPU time"
                return _failure("template-too-slow", f"{taken} and was not ready in the time of the request")
            reason = f"its process did not get {self._cpu_s:g} s of CPU time in time"
            raise _InterruptedError(reason) from None
        except ProcessEnded as error:
            if error.used_its_time_up:
                return _failure("template-too-slow", f"it takes more than {self._cpu_s:g} s")
            if error.crashed:
                return _failure("template-too-large", "it needs too much memory")
            raise _InterruptedError("its process was killed from outside") from None
        except OSError as error:
            raise _InterruptedError(f"no process could be started: {error}") from None
        answer: dict[str, Any] = json.loads(found)
        return answer


async def _in_thread(work: Callable[[], T], *, owner_id: str) -> T:
    try:
        return await threads.run(work, until=Deadline.after(TURN_WITHIN_S), owner_id=owner_id)
    except (DeadlineExceeded, TooManyAtOnce):
        raise _too_many() from None


def _too_many() -> Overloaded:
    return Overloaded("Too many templates are being rendered; try again.", retry_after_s=2)


def _failure(code: str, detail: str) -> dict[str, Any]:
    return {"code": code, "detail": detail, "part": "", "line": None}
