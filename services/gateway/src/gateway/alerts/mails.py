"""Mails of fired alerts: accepted like any other mail of the owner, if the owner may still send mail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import uuid5

from pydantic import ValidationError

from chassis import logging, metrics
from chassis.broker import envelope
from chassis.broker.envelope import Delivery
from chassis.postgres import Connection
from contracts.alerts import AlertFired, ConditionKind, Firing
from contracts.emails import SendEmail
from contracts.mail import Mail
from contracts.scopes import Scope
from gateway.acceptance import repository as acceptances
from gateway.acceptance.repository import Acceptance, Work
from gateway.http.replies import document
from gateway.identity import authority
from gateway.identity.authority import Maker

log = logging.get(__name__)

_WORDS: dict[ConditionKind, str] = {
    "above": "has risen above {threshold}",
    "below": "has fallen below {threshold}",
    "crosses": "has crossed {threshold}",
    "change_percent": "has changed by more than {threshold} % since the previous close",
}


async def promise(connection: Connection, deliveries: Sequence[Delivery[AlertFired]]) -> None:
    """Promise the mails of owners who may send mail now; drop and count the others.

    They are accepted in the transaction in which the events of the firings are handled.
    """
    notifying = [delivery.message for delivery in deliveries if delivery.message.notify]
    makers = {_maker(fired) for fired in notifying}
    holders = await authority.holders(connection, Scope.EMAILS_SEND, makers) if makers else set()
    works: list[Work] = []
    for fired in notifying:
        if _maker(fired) in holders:
            works += _mails(fired)
            # One tick may fire very many alerts.
            await asyncio.sleep(0)
        else:
            log.warning(
                "alert mail not sent: its owner may no longer send mail", alert=str(fired.firing.alert_id)
            )
            metrics.ALERT_MAILS.labels("forbidden").inc(len(fired.notify))
    if works:
        accepted = await acceptances.accept(connection, works)
        metrics.ALERT_MAILS.labels("accepted").inc(len(accepted))


def _maker(fired: AlertFired) -> Maker:
    # An access token without the right to send mail cannot have created an alert with an e-mail target.
    return Maker(fired.owner_id, fired.made_by, frozenset({Scope.EMAILS_SEND}))


def _mails(fired: AlertFired) -> Iterator[Work]:
    firing = fired.firing
    accepted_at = datetime.now(UTC)
    for number, target in enumerate(fired.notify):
        try:
            mail = Mail(to=[target.email], subject=_headline(firing), text=_text(firing), tags=["alert"])
        except ValidationError:  # the rules for addresses have changed since the alert was made
            log.warning("alert mail not sent: its address is refused now", alert=str(firing.alert_id))
            metrics.ALERT_MAILS.labels("refused").inc()
            continue
        # The id is the same each time the event is handled, so that the mail is accepted once.
        email_id = uuid5(firing.id, str(number))
        command = SendEmail.of(mail, email_id=email_id, owner_id=fired.owner_id, accepted_at=accepted_at)
        acceptance = Acceptance(email_id, fired.owner_id, "email", "queued", None, accepted_at)
        message = envelope.command(command, message_id=email_id, tenant=fired.owner_id)
        answer = document({"id": str(email_id), "status": "queued"})
        yield Work(acceptance, [message], answer, f"/v1/emails/{email_id}")


def _headline(firing: Firing) -> str:
    words = _WORDS[firing.condition.kind].format(threshold=f"{firing.condition.threshold.normalize():f}")
    return f"{firing.symbol} {words}"


def _text(firing: Firing) -> str:
    change = (
        "" if firing.change_percent is None else f" ({firing.change_percent:+} % since the previous close)"
    )
    simulated = "\nThe price is simulated: it comes from a replay of history." if firing.simulated else ""
    return (
        f"{_headline(firing)}.\n\n"
        f"Price: {firing.price}{change}\n"
        f"At: {firing.as_of.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, source: {firing.source}{simulated}\n"
        f"Alert: {firing.alert_id}\n"
    )
