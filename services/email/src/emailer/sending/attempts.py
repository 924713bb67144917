"""From one attempt to the recipient's next state: the job, the relay's answer, and the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from contracts import addresses
from contracts.emails import RecipientStatus
from contracts.mail import Stream
from contracts.mail_headers import replace_unsafe
from emailer.sending import outcomes
from emailer.sending.lanes import Lane
from emailer.sending.outcomes import Rule, SmtpAnswer
from emailer.suppression import faults
from emailer.suppression.faults import Fault
from emailer.suppression.rules import Target
from emailer.writing.dkim import Signer
from emailer.writing.letters import Letter

# So often a mail is sent again that the relay may have taken.
MOST_REPEATS = 2


@dataclass(frozen=True, slots=True)
class StoredMail:
    """A stored mail as the delivery needs it. `recipient_count` counts the envelope.

    Without `letter` it is stored in a form that cannot be read, and `flaw` says why; with a letter `flaw`
    says why it cannot be signed now. `refusal` says why its owner may not send it. `return_path_host` is the
    host of its sender's domain that leads bounces here.
    """

    id: UUID
    owner_id: str
    letter: Letter | None
    accepted_at: datetime
    send_at: datetime | None
    expires_at: datetime
    recipient_count: int
    traceparent: str | None
    request_id: str | None
    flaw: str = ""
    message_id: str | None = None
    refusal: str = ""
    signers: tuple[Signer, ...] = ()
    return_path_host: str | None = None

    @property
    def dated(self) -> datetime:
        """The time in its Date header: the moment at which it was meant to go."""
        return max(self.accepted_at, self.send_at or self.accepted_at)


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed recipient. `was` is its state before the claim; `sending` means that another process lost it.

    `doubts` counts the attempts after which the relay may have had the mail; `due_at` is when it was due,
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

    @property
    def target(self) -> Target:
        """The address, owner and stream that a suppression would be of."""
        return Target(self.mail.owner_id, self.stream, addresses.comparable(self.address))

    @property
    def lane(self) -> Lane:
        """The line in which it stands."""
        return Lane(self.stream, self.mail.owner_id, self.domain)

    @property
    def sender(self) -> tuple[str, str]:
        """The owner, and the domain that the mail is from."""
        return self.mail.owner_id, self.mail.letter.sender.domain if self.mail.letter else ""

    @property
    def domain(self) -> str:
        """The destination domain."""
        return self.address.rpartition("@")[2]

    @property
    def needs_rendering(self) -> bool:
        """Whether the mail is still to be made of its template."""
        return self.mail.letter is not None and self.mail.letter.template is not None

    @property
    def has_uploads(self) -> bool:
        """Whether the bytes of uploads are still to be read."""
        return self.mail.letter is not None and bool(self.mail.letter.upload_ids)

    @property
    def key(self) -> tuple[UUID, int]:
        """The identity of the recipient."""
        return self.mail.id, self.position


@dataclass(frozen=True, slots=True)
class Attempt:
    """The record of one try."""

    at: datetime
    host: str
    outcome: RecipientStatus
    code: int | None
    text: str
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The recipient's next state; `due_at` is null when nothing more is to be done.

    `fault` is what a refusal for good says about the address.
    """

    job: Job
    status: RecipientStatus
    due_at: datetime | None
    tries: int
    attempt: Attempt | None = None
    doubts: int = 0
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """The patience of the service: a factor on all waits, and the choice when the relay may have the mail.

    `rules` say what the relay's replies mean.
    """

    scale: float = 1
    on_ambiguous: Literal["retry", "hold"] = "retry"
    rules: Sequence[Rule] = field(default_factory=lambda: outcomes.with_own(()))


def answered(
    job: Job, answer: SmtpAnswer, *, draft: Attempt, patience: Patience, is_final: bool = True
) -> Outcome:
    """Return what follows from an answer that concerns this mail or this recipient.

    Unless `is_final`, a refusal is taken as "not now": the relay seems to refuse everything.
    """
    reply, verdict = answer.reply, outcomes.rule_of(answer, patience.rules).verdict
    if verdict == "delivered" or (verdict == "failed" and is_final):
        noted = replace(draft, outcome=verdict, code=reply.code, text=reply.text)
        fault = _fault(answer) if verdict == "failed" else None
        return Outcome(job, verdict, None, job.tries + 1, noted, job.doubts, fault)
    noted = replace(draft, outcome="deferred", code=reply.code, text=reply.text)
    return _again(job, noted, outcomes.wait_s(job.tries + 1, reply=reply, scale=patience.scale))


def interrupted(job: Job, reason: str, *, after_dot: bool, draft: Attempt, patience: Patience) -> Outcome:
    """Return the next step after a broken connection; before the final dot nothing was sent."""
    if after_dot:
        return ambiguous(job, reason, draft=draft, patience=patience)
    noted = replace(draft, outcome="deferred", text=reason)
    return _again(job, noted, outcomes.wait_s(job.tries + 1, scale=patience.scale))


def ambiguous(job: Job, reason: str, *, draft: Attempt, patience: Patience) -> Outcome:
    """Return the next step when the relay may have the mail: another try, or a wait for a decision.

    It is sent again at most twice: a relay that never answers would bring a reader the same mail for ever.
    """
    noted = replace(draft, outcome="ambiguous", text=reason)
    doubts = job.doubts + 1
    if patience.on_ambiguous == "hold" or doubts > MOST_REPEATS:
        return Outcome(job, "held", None, job.tries + 1, noted, doubts)
    found = _again(job, noted, outcomes.wait_s(job.tries + 1, scale=patience.scale))
    return replace(found, doubts=doubts)


def fallen(job: Job, *, draft: Attempt, patience: Patience) -> Outcome:
    """Return the next step when the process that was sending ended before it recorded the answer.

    It waits for no schedule: the relay said nothing against the mail. A mail that keeps bringing processes
    down is held soon.
    """
    reason = "the sending process ended before the answer was recorded"
    found = ambiguous(job, reason, draft=draft, patience=patience)
    return found if found.due_at is None else replace(found, due_at=draft.at)


def unreadable(job: Job, *, draft: Attempt, patience: Patience) -> Outcome:
    """Return the next step for a letter that cannot be read here; a newer release, which wrote it, may."""
    draft = replace(draft, host="")
    reason = "the mail is stored in a form that this release cannot read"
    return interrupted(job, reason, after_dot=False, draft=draft, patience=patience)


def unsigned(job: Job, *, draft: Attempt, patience: Patience) -> Outcome:
    """Return the next step for a mail whose DKIM key cannot be read: it waits for the operator."""
    draft = replace(draft, host="")
    return interrupted(job, f"not sent: {job.mail.flaw}", after_dot=False, draft=draft, patience=patience)


def refused(job: Job, *, draft: Attempt) -> Outcome:
    """Return the outcome of a mail whose owner may not send as its sender."""
    noted = replace(draft, outcome="failed", host="", text=f"not sent: {job.mail.refusal}")
    return Outcome(job, "failed", None, job.tries, noted, job.doubts)


def sender_refused(job: Job, *, noted: Attempt, wait_s: float) -> Outcome:
    """Return the next step for a mail whose sender the relay refuses by policy: it waits.

    That is its owner's trouble: no attempt is counted.
    """
    due_at = min(noted.at + timedelta(seconds=wait_s), job.mail.expires_at)
    return Outcome(job, "deferred", due_at, job.tries, noted, job.doubts)


def expired(job: Job) -> Outcome:
    """Return the outcome of a mail whose time is over: no attempt is made."""
    return Outcome(job, "expired", None, job.tries, doubts=job.doubts)


def suppressed(job: Job, reason: str, *, draft: Attempt) -> Outcome:
    """Return the outcome for a recipient to whom nothing is sent, for the reason that is given."""
    noted = replace(draft, outcome="suppressed", host="", text=reason)
    return Outcome(job, "suppressed", None, job.tries, noted, job.doubts)


def unrendered(job: Job, reason: str, *, draft: Attempt) -> Outcome:
    """Return the outcome of a mail that its template cannot make; it would fail in the same way again."""
    noted = replace(draft, outcome="failed", host="", text=replace_unsafe(f"not sent: template: {reason}"))
    return Outcome(job, "failed", None, job.tries, noted, job.doubts)


def given_back(job: Job, *, at: datetime) -> Outcome:
    """Return the outcome of a job that was not tried after all: as due as before, no attempt counted."""
    return Outcome(job, job.was, job.due_at or at, job.tries, doubts=job.doubts)


def put_off(job: Job, *, until: datetime) -> Outcome:
    """Return the outcome of a job that could not be tried now: due again at `until`, no attempt counted."""
    return Outcome(job, job.was, until, job.tries, doubts=job.doubts)


def _fault(answer: SmtpAnswer) -> Fault:
    if answer.stage not in ("recipient", "content"):
        # It is about the sender, or about the session.
        return "refused"
    return faults.judge(answer.reply.code, answer.reply.text, at_recipient=answer.stage == "recipient")


def _again(job: Job, attempt: Attempt, seconds: float) -> Outcome:
    # At its end a mail is looked at once more, and is expired then.
    due_at = min(attempt.at + timedelta(seconds=seconds), job.mail.expires_at)
    return Outcome(job, attempt.outcome, due_at, job.tries + 1, attempt, job.doubts)
