"""The marking of suppressed recipients of mails, in the transaction that stores the mails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chassis.postgres import Connection
from emailer.mails.intake import PreparedMail
from emailer.suppression import repository
from emailer.suppression.rules import Target


async def marked(connection: Connection, accepted: Sequence[PreparedMail]) -> list[PreparedMail]:
    """Return the mails with their suppressed recipients marked, each with the reason."""
    targets = [
        {
            addressee.shown: Target(one.command.owner_id, one.command.stream, addressee.parsed.comparable)
            for addressee in one.addressees
            if addressee.parsed is not None
        }
        for one in accepted
    ]
    asked = {target for of_mail in targets for target in of_mail.values()}
    reasons = await repository.reasons(connection, asked)
    if not reasons:
        return list(accepted)
    return [
        replace(one, suppressed={shown: reasons[of] for shown, of in of_mail.items() if of in reasons})
        for one, of_mail in zip(accepted, targets, strict=True)
    ]
