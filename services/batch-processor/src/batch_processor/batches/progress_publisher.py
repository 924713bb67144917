"""Live progress: pushed as it happens, at most once per interval and batch, and once at the end."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from batch_processor.batches import batch_repository
from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.batches.views import ShownBatch, show
from chassis import logging
from chassis.broker import bundles
from chassis.broker.envelope import Outgoing, live
from chassis.broker.publisher import Publisher
from chassis.errors import Unavailable
from chassis.postgres import DATABASE_FAILURES, Postgres
from contracts.batches import BatchProgressed

log = logging.get(__name__)

_REMEMBERED = 10_000
# Under load, changes within this time are pushed with one write.
_TOGETHER_S = 0.01
_MOST_BUNDLED = 64
_MOST_BUNDLED_BYTES = 512 * 1024
# Every gateway receives all batches, and alone knows which of them have a listener.
_BUNDLED_KEY = "batch.several"


class ProgressPublisher:
    """Accepts every change of a batch (`note`), and pushes the newest at most every `interval_s` seconds.

    The `offset` of a push is the batch's revision, which rises whichever process pushes.
    """

    def __init__(
        self,
        postgres: Postgres,
        publisher: Publisher,
        *,
        upload_expires_s: float,
        interval_s: float = 0.25,
    ) -> None:
        self._postgres = postgres
        self._publisher = publisher
        self._upload_expires_s = upload_expires_s
        self._interval_s = interval_s
        self._changed: dict[UUID, tuple[StoredBatch, ShownBatch | None]] = {}
        self._pushed_at: OrderedDict[UUID, float] = OrderedDict()
        self._wake = asyncio.Event()

    def note(self, batch: StoredBatch, view: ShownBatch | None = None) -> None:
        """Push a batch soon; call this after a commit. Without `view`, its data is read when it is pushed."""
        known = self._changed.get(batch.id)
        if known is None or known[0].revision < batch.revision:
            self._changed[batch.id] = (batch, view)
        if batch.kind == "task" and not batch.is_finished:
            # The client knows from the acceptance that it waits, and most tasks end before anything else.
            self._pushed_at.setdefault(batch.id, time.monotonic())
        self._wake.set()

    async def run(self) -> None:
        """Push changes, until cancelled."""
        # Changes that an error has left over are pushed without waiting for the next one.
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            now = time.monotonic()
            due = [
                (batch, view)
                for batch, view in self._changed.values()
                if batch.is_finished or now - self._pushed_at.get(batch.id, -1e9) >= self._interval_s
            ]
            for batch, _ in due:
                del self._changed[batch.id]
                self._pushed_at.pop(batch.id, None)
                if not batch.is_finished:
                    self._pushed_at[batch.id] = now
            while len(self._pushed_at) > _REMEMBERED:
                self._pushed_at.popitem(last=False)
            if due:
                await self._push(due)
                await asyncio.sleep(_TOGETHER_S)
            if self._changed:
                await asyncio.sleep(self._interval_s / 5)
                self._wake.set()

    async def _push(self, due: Sequence[tuple[StoredBatch, ShownBatch | None]]) -> None:
        views = {batch.id: view for batch, view in due if view is not None}
        unknown = [batch for batch, view in due if view is None]
        try:
            if unknown:
                async with self._postgres.connection() as connection:
                    around = await batch_repository.surroundings(connection, unknown)
                for batch in unknown:
                    view = show(batch, around[batch.id], upload_expires_s=self._upload_expires_s)
                    views[batch.id] = ShownBatch(view, around[batch.id].result_text)
            pushes = [_push_of(batch, views[batch.id]) for batch, _ in due]
            together: list[list[Outgoing]] = []
            size = 0
            for push in pushes:
                size += len(push.body)
                if not together or len(together[-1]) == _MOST_BUNDLED or size > _MOST_BUNDLED_BYTES:
                    together.append([])
                    size = len(push.body)
                together[-1].append(push)
            await self._publisher.send_together(
                [bundles.wrap(bundled, routing_key=_BUNDLED_KEY) for bundled in together]
            )
        except (*DATABASE_FAILURES, Unavailable) as error:
            # Progress may be lost: a client that reconnects requests the batch itself.
            log.debug("progress dropped", batches=len(due), reason=str(error))


def _push_of(batch: StoredBatch, shown: ShownBatch) -> Outgoing:
    """Return the push of a batch, with the result of a task as it was stored."""
    progressed = BatchProgressed(batch=shown.batch, owner_id=batch.owner_id, offset=batch.revision)
    push = live(progressed, f"batch.{batch.id}")
    if shown.result_text is None:
        return push
    # Within a string its quotes would be escaped, and no other member of a batch has this name and is null.
    body = push.body.replace(b'"result":null', b'"result":' + shown.result_text.encode(), 1)
    return replace(push, body=body)
