"""The job of sending to one recipient, and the next state that follows from each attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from contracts import parsed_addresses
from contracts.emails import RecipientStatus
from contracts.mail import Stream
from contracts.mail_headers import replace_unsafe
from emailer.mails.stored_mail import AttemptRecord, StoredMail
from emailer.sending import outcomes
from emailer.sending.lanes import MailLane
from emailer.sending.outcomes import Rule, SmtpAnswer
from emailer.suppression import faults
from emailer.suppression.faults import Fault
from emailer.suppression.rules import Target

# How often a mail is sent again that the relay may have accepted.
MOST_REPEATS = 2


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed recipient. `was` is its state before the claim; `sending` means that another process lost it.

    `doubts` counts attempts after which the relay may have accepted the mail; `due_at` is when it was due,
    `taken_at` when it was claimed, by the monotonic clock.
    """

    mail: StoredMail
    position: int
    address: str
    tries: int
    was: RecipientStatus
    doubts: int = 0
    stream: Stream = "transactional"
    due_at: datetime | None = None
    taken_at: float = 0
    # The destination domain, and the lane in which it waits: made once, since every step asks for them.
    domain: str = field(init=False)
    lane: MailLane = field(init=False)

    def __post_init__(self) -> None:
        domain = self.address.rpartition("@")[2]
        object.__setattr__(self, "domain", domain)
        object.__setattr__(self, "lane", MailLane(self.stream, self.mail.owner_id, domain))

    @property
    def target(self) -> Target:
        """The address, owner and stream that a suppression would apply to."""
        return Target(self.mail.owner_id, self.stream, parsed_addresses.comparable(self.address))

    @property
    def sender(self) -> tuple[str, str]:
        """The owner, and the domain of the mail's sender."""
        return self.mail.owner_id, self.mail.letter.sender.domain if self.mail.letter else ""

    @property
    def needs_rendering(self) -> bool:
        """Whether the mail's template has not been rendered yet."""
        return self.mail.letter is not None and self.mail.letter.template is not None

    @property
    def has_uploads(self) -> bool:
        """Whether the mail attaches uploads, whose bytes are read before sending."""
        letter = self.mail.letter
        return letter is not None and bool(letter.files) and bool(letter.upload_ids)

    @property
    def key(self) -> tuple[UUID, int]:
        """The identity of the recipient."""
        return self.mail.id, self.position


@dataclass(frozen=True, slots=True)
class RecipientOutcome:
    """The recipient's next state; `due_at` is None when no further attempt follows.

    `fault` is what a permanent refusal says about the address.
    """

    job: Job
    status: RecipientStatus
    due_at: datetime | None
    tries: int
    attempt: AttemptRecord | None = None
    doubts: int = 0
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """The retry policy: a factor on all waits, and what to do when the relay may have accepted the mail.

    `rules` define the meaning of the relay's replies.
    """

    scale: float = 1
    on_ambiguous: Literal["retry", "hold"] = "retry"
    rules: Sequence[Rule] = field(default_factory=lambda: outcomes.with_own(()))


def answered(
    job: Job, answer: SmtpAnswer, *, draft: AttemptRecord, patience: Patience, is_final: bool = True
) -> RecipientOutcome:
    """Return the outcome of an answer that concerns this mail or this recipient.

    Unless `is_final`, a refusal counts as temporary: the relay seems to refuse everything.
    """
    reply, verdict = answer.reply, outcomes.rule_of(answer, patience.rules).verdict
    if verdict == "delivered" or (verdict == "failed" and is_final):
        # Like `replace`, which takes as long as all the rest.
        noted = AttemptRecord(draft.at, draft.host, verdict, reply.code, reply.text, draft.tls)
        fault = _fault(answer) if verdict == "failed" else None
        return RecipientOutcome(job, verdict, None, job.tries + 1, noted, job.doubts, fault)
    noted = replace(draft, outcome="deferred", code=reply.code, text=reply.text)
    return _again(job, noted, outcomes.wait_s(job.tries + 1, reply=reply, scale=patience.scale))


def interrupted(
    job: Job, reason: str, *, after_dot: bool, draft: AttemptRecord, patience: Patience
) -> RecipientOutcome:
    """Return the outcome of a broken connection; before the final dot the mail was not sent."""
    if after_dot:
        return ambiguous(job, reason, draft=draft, patience=patience)
    noted = replace(draft, outcome="deferred", text=reason)
    return _again(job, noted, outcomes.wait_s(job.tries + 1, scale=patience.scale))


def ambiguous(job: Job, reason: str, *, draft: AttemptRecord, patience: Patience) -> RecipientOutcome:
    """Return the outcome when the relay may have the mail: another attempt, or held for a decision.

    It is sent again at most twice: with a relay that never answers, the recipient might get it endlessly.
    """
    noted = replace(draft, outcome="ambiguous", text=reason)
    doubts = job.doubts + 1
    if patience.on_ambiguous == "hold" or doubts > MOST_REPEATS:
        return RecipientOutcome(job, "held", None, job.tries + 1, noted, doubts)
    found = _again(job, noted, outcomes.wait_s(job.tries + 1, scale=patience.scale))
    return replace(found, doubts=doubts)


def fallen(job: Job, *, draft: AttemptRecord, patience: Patience) -> RecipientOutcome:
    """Return the outcome when the sending process ended before it recorded the relay's answer.

    It is retried at once: the relay did not refuse the mail. A mail that keeps crashing processes is held
    after a few attempts.
    """
    reason = "the sending process ended before the answer was recorded"
    found = ambiguous(job, reason, draft=draft, patience=patience)
    return found if found.due_at is None else replace(found, due_at=draft.at)


def unreadable(job: Job, *, draft: AttemptRecord, patience: Patience) -> RecipientOutcome:
    """Return the outcome for a letter that this release cannot read; the newer one that wrote it can."""
    draft = replace(draft, host="")
    reason = "the mail is stored in a form that this release cannot read"
    return interrupted(job, reason, after_dot=False, draft=draft, patience=patience)


def unsigned(job: Job, *, draft: AttemptRecord, patience: Patience) -> RecipientOutcome:
    """Return the outcome for a mail whose DKIM key cannot be decrypted: retried until the operator acts."""
    draft = replace(draft, host="")
    return interrupted(job, f"not sent: {job.mail.flaw}", after_dot=False, draft=draft, patience=patience)


def refused(job: Job, *, draft: AttemptRecord) -> RecipientOutcome:
    """Return the outcome of a mail whose owner may not send as its sender."""
    noted = replace(draft, outcome="failed", host="", text=f"not sent: {job.mail.refusal}")
    return RecipientOutcome(job, "failed", None, job.tries, noted, job.doubts)


def sender_refused(job: Job, *, noted: AttemptRecord, wait_s: float) -> RecipientOutcome:
    """Return the outcome for a mail whose sender the relay refuses or limits: deferred.

    The cause lies with its owner, not the recipient: no attempt is counted.
    """
    due_at = min(noted.at + timedelta(seconds=wait_s), job.mail.expires_at)
    return RecipientOutcome(job, "deferred", due_at, job.tries, noted, job.doubts)


def expired(job: Job) -> RecipientOutcome:
    """Return the outcome for a mail that has expired: no attempt is made."""
    return RecipientOutcome(job, "expired", None, job.tries, doubts=job.doubts)


def suppressed(job: Job, reason: str, *, draft: AttemptRecord) -> RecipientOutcome:
    """Return the outcome for a suppressed recipient: nothing is sent, for the given reason."""
    noted = replace(draft, outcome="suppressed", host="", text=reason)
    return RecipientOutcome(job, "suppressed", None, job.tries, noted, job.doubts)


def unrendered(job: Job, reason: str, *, draft: AttemptRecord) -> RecipientOutcome:
    """Return the outcome for a mail whose template cannot be rendered; a retry would fail in the same way."""
    noted = replace(draft, outcome="failed", host="", text=replace_unsafe(f"not sent: template: {reason}"))
    return RecipientOutcome(job, "failed", None, job.tries, noted, job.doubts)


def given_back(job: Job, *, at: datetime) -> RecipientOutcome:
    """Return the outcome for a job that was not attempted after all: due as before, no attempt counted."""
    return RecipientOutcome(job, job.was, job.due_at or at, job.tries, doubts=job.doubts)


def put_off(job: Job, *, until: datetime) -> RecipientOutcome:
    """Return the outcome for a job that cannot be attempted now: due at `until`, no attempt counted."""
    return RecipientOutcome(job, job.was, until, job.tries, doubts=job.doubts)


def _fault(answer: SmtpAnswer) -> Fault:
    if answer.stage not in ("recipient", "content"):
        # The refusal is about the sender or the session.
        return "refused"
    return faults.judge(answer.reply.code, answer.reply.text, at_recipient=answer.stage == "recipient")


def _again(job: Job, attempt: AttemptRecord, seconds: float) -> RecipientOutcome:
    # A mail is due once more at its expiry, and is marked as expired then.
    due_at = min(attempt.at + timedelta(seconds=seconds), job.mail.expires_at)
    return RecipientOutcome(job, attempt.outcome, due_at, job.tries + 1, attempt, job.doubts)
