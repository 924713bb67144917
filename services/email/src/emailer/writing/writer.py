"""Building of mails and conversion of their HTML: light ones in this process, others in separate ones."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from functools import partial

from chassis import logging, metrics, threads
from chassis.errors import Overloaded, TooManyAtOnce
from chassis.turns import OwnerTurns
from emailer.errors import UnwritableMail
from emailer.mails import letters
from emailer.mails.letters import Letter
from emailer.mails.stored_mail import StoredMail
from emailer.templates.recent import RecentCounts
from emailer.workers.processes import FrameTooLarge, ProcessEnded, WorkerProcesses
from emailer.writing import digests, rendering, worker
from emailer.writing.signing import MailSigner

log = logging.get(__name__)

# Below this, writing a mail takes less time (0.02 to 1 ms) than handing it to a process and back.
LIGHT_BYTES = 16 * 1024
# Several times what the process may take of a processor: at low priority it gets little of a busy machine,
# and what it has done would be lost, each time.
ANSWER_WITHIN_S = 180.0
TURN_WITHIN_S = 60.0
# A mail that is interrupted repeatedly is tried at longer and longer intervals.
_LONGEST_WAIT_S = 300.0
_MOST_NOTED = 10_000
_NOTED_OF_OWNER = 300
_MOST_FRAME = 64 << 20
_LIGHT = metrics.EMAIL_WRITTEN.labels("light")


def is_light(letter: Letter) -> bool:
    """Return whether `letter` is written in this process."""
    return letter.text is not None and letter.written_bytes <= LIGHT_BYTES


class MailWriter:
    """Builds mails and converts HTML in at most `size` processes, which start when they are first needed."""

    def __init__(self, *, size: int = 2) -> None:
        # One process is left to the others, whatever one owner's mails take. Those that wait are in hand, so
        # they are bounded already.
        self._turns = OwnerTurns(most=size, of_owner=max(1, size - 1), most_waiting=sys.maxsize)
        self._signer = MailSigner()
        self._processes = WorkerProcesses("emailer.writing.worker")
        self._interrupted = RecentCounts(
            most=_MOST_NOTED, of_owner=_NOTED_OF_OWNER, age_s=2 * _LONGEST_WAIT_S
        )

    @property
    def processes(self) -> tuple[asyncio.subprocess.Process, ...]:
        """The processes that there are now."""
        return self._processes.processes

    async def text_of(self, mail: StoredMail) -> str:
        """Return the visible text of the HTML of `mail`. Raise as `write` does."""
        assert mail.letter is not None  # mails without one are not attempted
        return str(json.loads(await self._ask(mail, worker.request_to_read(mail.letter.html or ""))))

    async def write(self, mail: StoredMail) -> bytes:
        """Return `mail` as it goes over the wire.

        Raise `Overloaded` when it cannot be built now, and `UnwritableMail` when its process failed at it.

        The keys that sign never leave this process.
        """
        letter = mail.letter
        assert letter is not None  # mails without one are not attempted
        # Rows stored by the previous release have none.
        identity = mail.message_id or letters.message_id(mail.id, domain=letter.sender.domain)
        if is_light(letter):
            content = rendering.render(letter, identity=identity, at=mail.dated)
            _LIGHT.inc()
            if not mail.signers:
                return content
            digest = digests.body_digest(content)
        else:
            signs = bool(mail.signers)
            request = worker.request_to_write(letter, identity=identity, at=mail.dated, with_digest=signs)
            content = await self._ask(mail, request)
            metrics.EMAIL_WRITTEN.labels("heavy").inc()
            if not signs:
                return content
            digest, content = content[: digests.DIGEST_BYTES], content[digests.DIGEST_BYTES :]
        return await self._signer.sign(content, mail.signers, at=mail.dated, body_digest=digest)

    async def close(self) -> None:
        """End all processes and the thread."""
        self._signer.close()
        await self._processes.close()

    async def _ask(self, mail: StoredMail, parts: Iterable[bytes]) -> bytes:
        reason, key = "other mails are being written", mail.id.bytes
        try:
            async with asyncio.timeout(TURN_WITHIN_S) as waiting:
                # In a thread: a letter may have a megabyte of HTML. Before the turn, so that no other owner
                # waits for this one's thread.
                pieces = await threads.run(partial(tuple, parts), owner_id=mail.owner_id)
                async with self._turns.turn(mail.owner_id):
                    waiting.reschedule(None)
                    reason = "its process did not answer in time"
                    answer = await self._processes.ask(
                        *pieces, within_s=ANSWER_WITHIN_S, most_bytes=_MOST_FRAME
                    )
            self._interrupted.forget(key, owner_id=mail.owner_id)
            return answer
        except FrameTooLarge:
            raise UnwritableMail("it is too large") from None
        except ProcessEnded as error:
            if error.crashed or error.raised:
                raise UnwritableMail(str(error)) from None
            reason = str(error)
        except (OSError, TooManyAtOnce) as error:
            # A time-out is an `OSError` without words.
            reason = str(error) or reason
        wait_s = min(_LONGEST_WAIT_S, 2.0 ** self._interrupted.note(key, owner_id=mail.owner_id))
        metrics.EMAIL_WRITTEN.labels("interrupted").inc()
        log.warning("mail not written", email_id=str(mail.id), reason=reason, retry_after_s=wait_s)
        raise Overloaded(f"The mail was not written, because {reason}; try again.", retry_after_s=wait_s)
