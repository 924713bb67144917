"""Rendering off the event loop: a few processes, each with one template at a time, and one for an owner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from chassis import logging, metrics
from chassis.errors import Overloaded
from contracts.templates import RenderedTemplate, TemplateSource
from emailer.errors import TemplateFailed
from emailer.templates.worker import LENGTH, MOST_FRAME

log = logging.get(__name__)

# A process has two seconds of CPU time for a template; a busy machine may take longer to give them.
_ANSWER_WITHIN_S = 10.0
_TURN_WITHIN_S = 20.0
# A template that was too slow so often is not tried for a while.
MOST_TOO_SLOW = 3
_NOT_TRIED_S = 600.0
_MOST_NOTED = 1000


class TemplateRenderer:
    """Renders templates in at most `size` processes, which start when they are first needed."""

    def __init__(self, *, size: int = 2) -> None:
        self._turns = asyncio.Semaphore(size)
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()
        self._owners: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._too_slow: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._is_closed = False

    @property
    def processes(self) -> tuple[asyncio.subprocess.Process, ...]:
        """The processes that there are now."""
        return tuple(self._all)

    async def check(self, source: TemplateSource, *, owner_id: str) -> None:
        """Raise `TemplateFailed` unless each part of `source` is a template."""
        await self._ask(source, None, owner_id=owner_id)

    async def render(
        self, source: TemplateSource, data: Mapping[str, Any], *, owner_id: str
    ) -> RenderedTemplate:
        """Return `source` filled with `data`. Raise `TemplateFailed` when that cannot be done."""
        return RenderedTemplate.model_validate((await self._ask(source, data, owner_id=owner_id))["rendered"])

    async def close(self) -> None:
        """End all processes."""
        self._is_closed = True
        for process in list(self._all):
            await self._end(process)

    async def _ask(
        self, source: TemplateSource, data: Mapping[str, Any] | None, *, owner_id: str
    ) -> dict[str, Any]:
        key = f"{owner_id} {hash(source)}"
        self._require_quick(key)
        own = self._owners.get(owner_id)
        if own is None:
            own = self._owners[owner_id] = asyncio.Lock()
        try:
            async with asyncio.timeout(_TURN_WITHIN_S) as waiting, own, self._turns:
                waiting.reschedule(None)
                answer = await self._answer({"source": source.model_dump(), "data": data})
        except TimeoutError:
            raise Overloaded("Templates are being rendered; try again.", retry_after_s=2) from None
        code = answer.get("code")
        metrics.EMAIL_TEMPLATES.labels(code or "rendered").inc()
        if code == "template-too-slow":
            self._note_too_slow(key)
        if code:
            raise TemplateFailed(code, answer["detail"], part=answer["part"], line=answer["line"])
        return answer

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        process = await self._take()
        assert process.stdin is not None
        assert process.stdout is not None
        frame = await asyncio.to_thread(lambda: json.dumps(asked).encode())
        is_whole = False
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                process.stdin.write(LENGTH.pack(len(frame)) + frame)
                await process.stdin.drain()
                [length] = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
                if length > MOST_FRAME:
                    return _failure("template-too-large", "there is too much of it")
                answer: dict[str, Any] = json.loads(await process.stdout.readexactly(length))
                is_whole = True
                return answer
        except TimeoutError:
            return _failure("template-too-slow", f"it takes more than {_ANSWER_WITHIN_S:g} s")
        except (asyncio.IncompleteReadError, ConnectionError):
            # The template has ended its process, most likely by using too much memory.
            return _failure("template-too-large", "it needs too much memory")
        finally:
            if is_whole and not self._is_closed:
                self._idle.append(process)
            else:
                await self._end(process)

    async def _take(self) -> asyncio.subprocess.Process:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
            self._all.discard(process)
        return await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "emailer.templates.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # The environment of the service holds secrets, which no template may reach.
            env={},
        )
        self._all.add(process)
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._all.discard(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def _require_quick(self, key: str) -> None:
        count, until = self._too_slow.get(key, (0, 0.0))
        if count >= MOST_TOO_SLOW and time.monotonic() < until:
            raise TemplateFailed(
                "template-too-slow", f"it was too slow {count} times and is not tried for a while"
            )

    def _note_too_slow(self, key: str) -> None:
        count, _ = self._too_slow.pop(key, (0, 0.0))
        self._too_slow[key] = (count + 1, time.monotonic() + _NOT_TRIED_S)
        if len(self._too_slow) > _MOST_NOTED:
            self._too_slow.popitem(last=False)


def _failure(code: str, detail: str) -> dict[str, Any]:
    return {"code": code, "detail": detail, "part": "", "line": None}
