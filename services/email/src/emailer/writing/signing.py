"""Signing in a thread beside the event loop, in groups of the mails that wait at the same time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial

from chassis.errors import Overloaded
from emailer.mails.stored_mail import Signer
from emailer.writing import dkim

# This many signatures take about 10 ms, so the first does not wait long for the others.
_GROUP = 16
# All mails in hand are signed within a second, unless the machine is stalled.
SIGNED_WITHIN_S = 30.0

_Signing = Callable[[], bytes]


class MailSigner:
    """Signs mails in one thread, which releases the GIL while it computes.

    A round trip to a thread costs the loop as much as the rest of a light mail, and waits twice for the GIL.
    So the thread takes up to 16 mails at a time, in the order in which they came.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="signer")
        self._waiting: deque[tuple[_Signing, asyncio.Future[bytes]]] = deque()
        self._work: asyncio.Task[None] | None = None

    async def sign(
        self, content: bytes, signers: Sequence[Signer], *, at: datetime, body_digest: bytes
    ) -> bytes:
        """Return `content` with its signatures, as `dkim.sign` makes them.

        Raise `Overloaded` when they are not made in time.
        """
        loop = asyncio.get_running_loop()
        signed: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append((partial(dkim.sign, content, signers, at=at, body_digest=body_digest), signed))
        if self._work is None or self._work.done():
            self._work = loop.create_task(self._sign_waiting())
        try:
            async with asyncio.timeout(SIGNED_WITHIN_S):
                return await signed
        except TimeoutError:
            raise Overloaded("The mail was not signed in time; try again.", retry_after_s=1) from None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _sign_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
            made = await loop.run_in_executor(self._thread, _made, [signing for signing, _ in group])
            for (_, signed), one in zip(group, made, strict=True):
                if signed.done():
                    continue  # nobody waits for it any more
                if isinstance(one, bytes):
                    signed.set_result(one)
                else:
                    signed.set_exception(one)


def _made(signings: Iterable[_Signing]) -> list[bytes | Exception]:
    """Return the result of each of `signings`, or its exception."""
    made: list[bytes | Exception] = []
    for signing in signings:
        try:
            made.append(signing())
        except Exception as error:  # one failure must not stop the others
            made.append(error)
    return made
