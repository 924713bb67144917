"""The load: clients that send mails, tasks and batches, and that try again until they get 202."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from faults.ledger import Kind, Ledger
from faults.rig import Rig

_WORKERS = 8
_AGAIN_S = 0.25


@dataclass(frozen=True)
class LoadRequest:
    """One request: where, what, and the key by which it is known here and at the far end.

    An upload streams `lines` lines over about a second. It carries no Idempotency-Key: one that was cut off
    is sent again as another.
    """

    key: str
    kind: Kind
    path: str
    body: dict[str, Any] = field(default_factory=dict)
    lines: int = 0


@dataclass(frozen=True)
class WorkCounts:
    """The number of each kind of work; a batch and an upload have `items` items."""

    mails: int = 150
    tasks: int = 100
    batches: int = 10
    items: int = 20
    uploads: int = 0

    @property
    def total(self) -> int:
        """The number of requests."""
        return self.mails + self.tasks + self.batches + self.uploads


@dataclass
class AnswerCounts:
    """The answers of the API: how often each came, and the slowest in seconds."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0
    slowest: str = ""

    def note(self, what: str, elapsed_s: float) -> None:
        """Count one answer."""
        self.counts[what] += 1
        if elapsed_s > self.slowest_s:
            self.slowest_s, self.slowest = elapsed_s, what

    def summary(self) -> str:
        """Return all in a line, the most frequent first."""
        return ", ".join(f"{what}: {count}" for what, count in self.counts.most_common())


def plan(counts: WorkCounts, ledger: Ledger, rng: random.Random) -> list[LoadRequest]:
    """Return the work in an order of the seed's, with an entry in the ledger for each."""
    mark = f"{rng.getrandbits(40):010x}"
    work = [_mail(f"{mark}-m{n}@example.com") for n in range(counts.mails)]
    work += [_task(f"{mark}-t{n}") for n in range(counts.tasks)]
    work += [_batch(f"{mark}-b{n}", counts.items) for n in range(counts.batches)]
    work += [_upload(f"{mark}-u{n}", counts.items) for n in range(counts.uploads)]
    for one in work:
        ledger.plan(one.key, one.kind, effects=counts.items if one.kind == "batch" else 1)
    rng.shuffle(work)
    return work


class EvenLoad:
    """Sends `work` evenly over `seconds`, each with an Idempotency-Key, again and again until accepted.

    The gateways of the rig are used in turn.
    """

    def __init__(self, rig: Rig, work: list[LoadRequest], ledger: Ledger, *, seconds: float) -> None:
        self.answers = AnswerCounts()
        self._rig = rig
        self._work = work
        self._ledger = ledger
        self._seconds = seconds
        self._turn = 0

    async def run(self, *, give_up_s: float = 150) -> None:
        """Return when all is accepted; fail after `give_up_s` seconds."""
        waiting = iter(list(enumerate(self._work)))
        started = time.monotonic()

        async def send_from_the_pile(client: httpx.AsyncClient) -> None:
            for number, one in waiting:
                due = started + number * self._seconds / len(self._work)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._insist(client, one)

        async with asyncio.timeout(give_up_s), self._rig.client() as client, asyncio.TaskGroup() as workers:
            for _ in range(_WORKERS):
                workers.create_task(send_from_the_pile(client))

    async def _insist(self, client: httpx.AsyncClient, work: LoadRequest) -> None:
        while not await self._try(client, work):
            await asyncio.sleep(_AGAIN_S)

    async def _try(self, client: httpx.AsyncClient, work: LoadRequest) -> bool:
        url = self._rig.urls[self._turn % len(self._rig.urls)] + work.path
        self._turn += 1
        started = time.monotonic()
        try:
            answer = await _post(client, url, work)
        except httpx.TransportError as error:
            self.answers.note(type(error).__name__, time.monotonic() - started)
            return False
        self.answers.note(describe(answer), time.monotonic() - started)
        if answer.status_code != 202:
            return False
        self._ledger.accept(work.key, answer.json()["id"])
        return True


async def _post(client: httpx.AsyncClient, url: str, work: LoadRequest) -> httpx.Response:
    if work.lines:
        headers = {"Content-Type": "application/x-ndjson"}
        return await client.post(url, content=_lines(work.lines), headers=headers)
    return await client.post(url, json=work.body, headers={"Idempotency-Key": f'"{work.key}"'})


async def _lines(count: int) -> AsyncIterator[bytes]:
    for start in range(0, count, 100):
        yield b"".join(b'{"payload": %d}\n' % n for n in range(start, min(start + 100, count)))
        await asyncio.sleep(100 / count)


def describe(answer: httpx.Response) -> str:
    """Return an answer in two words: its status, and its problem if it is one."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return str(answer.status_code)
    return f"{answer.status_code} {answer.json()['type'].removeprefix('/problems/')}"


def _mail(recipient: str) -> LoadRequest:
    body = {"to": [recipient], "subject": recipient, "text": "Once and only once.\n"}
    return LoadRequest(recipient, "mail", "/v1/emails", body)


def _task(key: str) -> LoadRequest:
    return LoadRequest(key, "task", "/v1/tasks", {"operation": "echo", "payload": key})


def _batch(key: str, items: int) -> LoadRequest:
    body = {"operation": "echo", "items": [{"custom_id": f"{key}-{n}", "payload": n} for n in range(items)]}
    return LoadRequest(key, "batch", "/v1/batches", body)


def _upload(key: str, items: int) -> LoadRequest:
    return LoadRequest(key, "batch", "/v1/batches?operation=echo", lines=items)
