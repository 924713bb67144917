"""Building of mails and conversion of their HTML: light ones in this process, others in separate ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterable
from functools import partial

from chassis import logging, metrics, threads
from chassis.errors import Overloaded
from chassis.turns import OwnerTurns
from emailer.sending.attempts import StoredMail
from emailer.workers.processes import ProcessEnded, WorkerProcesses
from emailer.writing import dkim, rendering, worker
from emailer.writing.letters import Letter
from emailer.writing.signing import MailSigner

log = logging.get(__name__)

# Below this, writing a mail takes less time (0.02 to 1 ms) than handing it to a process and back.
LIGHT_BYTES = 16 * 1024
# Generous, because the processes have low priority, and large mails wait for one another.
ANSWER_WITHIN_S = 30.0
_TURN_WITHIN_S = 60.0
_MOST_FRAME = 64 << 20
_LIGHT = metrics.EMAIL_WRITTEN.labels("light")


def is_light(letter: Letter) -> bool:
    """Return whether `letter` is written in this process."""
    return letter.text is not None and letter.size_bytes <= LIGHT_BYTES


class MailWriter:
    """Builds mails and converts HTML in at most `size` processes, which start when they are first needed."""

    def __init__(self, *, size: int = 2) -> None:
        # One process is left to the others, whatever one owner's mails take. Those that wait are in hand, so
        # they are bounded already.
        self._turns = OwnerTurns(most=size, of_owner=max(1, size - 1), most_waiting=sys.maxsize)
        self._signer = MailSigner()
        self._processes = WorkerProcesses("emailer.writing.worker")

    @property
    def processes(self) -> tuple[asyncio.subprocess.Process, ...]:
        """The processes that there are now."""
        return self._processes.processes

    async def text_of(self, html: str, *, owner_id: str) -> str:
        """Return the visible text of `html`. Raise `Overloaded` when it cannot be converted now."""
        return str(json.loads(await self._ask(worker.request_to_read(html), owner_id=owner_id)))

    async def write(self, mail: StoredMail) -> bytes:
        """Return `mail` as it goes over the wire. Raise `Overloaded` when it cannot be built now.

        The keys that sign never leave this process.
        """
        letter = mail.letter
        assert letter is not None  # mails without one are not attempted
        # Rows stored by the previous release have none.
        identity = mail.message_id or rendering.message_id(mail.id, domain=letter.sender.domain)
        if is_light(letter):
            content = rendering.render(letter, identity=identity, at=mail.dated)
            _LIGHT.inc()
            if not mail.signers:
                return content
            digest = dkim.body_digest(content)
        else:
            signs = bool(mail.signers)
            request = worker.request_to_write(letter, identity=identity, at=mail.dated, with_digest=signs)
            content = await self._ask(request, owner_id=mail.owner_id)
            metrics.EMAIL_WRITTEN.labels("heavy").inc()
            if not signs:
                return content
            digest, content = content[: dkim.DIGEST_BYTES], content[dkim.DIGEST_BYTES :]
        return await self._signer.sign(content, mail.signers, at=mail.dated, body_digest=digest)

    async def close(self) -> None:
        """End all processes and the thread."""
        self._signer.close()
        await self._processes.close()

    async def _ask(self, parts: Iterable[bytes], *, owner_id: str) -> bytes:
        reason = "other mails are being written"
        # In a thread: a letter may have a megabyte of HTML. Before the turn, so that no other owner waits for
        # this one's thread.
        pieces = await threads.run(partial(tuple, parts), owner_id=owner_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TURN_WITHIN_S) as waiting, self._turns.turn(owner_id):
                waiting.reschedule(None)
                try:
                    return await self._processes.ask(
                        *pieces, within_s=ANSWER_WITHIN_S, most_bytes=_MOST_FRAME
                    )
                except (ProcessEnded, OSError) as error:
                    reason = str(error) or "its process did not answer in time"
        metrics.EMAIL_WRITTEN.labels("interrupted").inc()
        log.warning("mail not written", reason=reason)
        raise Overloaded(f"The mail was not written, because {reason}; try again.", retry_after_s=2)
