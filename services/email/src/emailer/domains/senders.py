"""The check of senders right before a mail is sent: the owner's right to the domain, and the signing keys."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import cast
from uuid import UUID

from chassis import logging
from chassis.owner_cache import OwnerCache
from chassis.postgres import Connection, Row
from contracts import addresses
from contracts.domains import AllowedSenders, KeyAlgorithm
from emailer.domains import repository
from emailer.domains.keys import KeySafe
from emailer.errors import UnreadableKey
from emailer.mails.stored_mail import Signer, StoredMail

log = logging.get(__name__)

# Seconds for which a positive answer is cached.
_FRESH_S = 5.0
# In all, and of one owner: where anybody may send as anybody, one may use any number of domains.
MOST_KNOWN = 10_000
MOST_OF_OWNER = 500

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SendingRight:
    """An owner's right to send from a domain: whether it is verified, and the keys that sign its mails.

    For a domain that the owner does not have, the keys are another owner's. `flaw` says why mails cannot
    be signed although they should be. Bounces to `return_path_host`, a host of the domain, arrive here.
    """

    is_verified: bool = False
    signers: tuple[Signer, ...] = ()
    flaw: str = ""
    return_path_host: str | None = None


class Senders:
    """Decides who may send from a domain; positive answers are cached briefly."""

    def __init__(self, allowed: AllowedSenders, *, default_sender: str, safe: KeySafe | None) -> None:
        self._allowed = allowed
        self._default = addresses.parse(default_sender)
        self._safe = safe
        # The time until which an answer is used comes first.
        self._known = OwnerCache[str, tuple[float, SendingRight]](most=MOST_KNOWN, of_owner=MOST_OF_OWNER)

    async def identify(
        self, connection: Connection, mails: Mapping[UUID, StoredMail]
    ) -> dict[UUID, StoredMail]:
        """Return `mails`, each with its signers, or with the reason why its owner may not send it."""
        wanted = {_key(mail) for mail in mails.values() if mail.letter is not None}
        rights = await self._learn(connection, wanted)
        return {mail_id: self._identified(mail, rights) for mail_id, mail in mails.items()}

    def _identified(self, mail: StoredMail, rights: Mapping[Key, SendingRight]) -> StoredMail:
        if mail.letter is None:
            return mail
        authority, domain = rights[_key(mail)], mail.letter.sender.domain.lower()
        is_default = mail.letter.sender.address.lower() == self._default.address.lower()
        if not (authority.is_verified or is_default or self._allowed.allows(domain)):
            reason = f"sender-not-allowed: {domain} is not a verified domain of the owner of this mail"
            return replace(mail, refusal=reason)
        if not (authority.signers or authority.flaw or authority.return_path_host):
            return mail
        if authority.is_verified or is_default or self._allowed.named([domain]):
            return replace(
                mail,
                signers=authority.signers,
                flaw=authority.flaw,
                return_path_host=authority.return_path_host,
            )
        # Where anybody may send as anybody, a mail is still not signed with another owner's keys.
        return mail

    async def _learn(self, connection: Connection, wanted: Collection[Key]) -> dict[Key, SendingRight]:
        now = time.monotonic()
        # What is known may be forgotten while others are looked up.
        cached = {key: known for key in wanted if (known := self._known.get(*key)) is not None}
        rights = {key: authority for key, (until, authority) in cached.items() if until > now}
        unknown = [key for key in wanted if key not in rights]
        if not unknown:
            return rights
        # The keys of a domain that the operator has allowed by name sign for everybody who may send from it.
        names = {name for _, name in unknown}
        shared = set(self._allowed.named(names)) | (names & {self._default.domain.lower()})
        rows = await repository.find_senders(connection, unknown, of_anybody=shared)
        found: dict[Key, list[Row]] = {}
        for row in rows:
            found.setdefault((row["owner_id"], row["name"]), []).append(row)
        for owner_id, name in unknown:
            own = found.get((owner_id, name))
            others = next((rows for (_, of), rows in found.items() if of == name and name in shared), None)
            used = own or others or []
            authority = SendingRight(
                is_verified=own is not None, return_path_host=used[0]["return_path_host"] if used else None
            )
            for row in used:
                if row["selector"] is not None:
                    authority = self._with(authority, name, row)
            # A refusal is final for a mail, so it is never cached.
            if authority.is_verified or self._allowed.allows(name):
                self._known.store(owner_id, name, (now + _FRESH_S, authority))
            rights[owner_id, name] = authority
        return rights

    def _with(self, authority: SendingRight, domain: str, row: Row) -> SendingRight:
        selector = row["selector"]
        try:
            if self._safe is None:
                raise UnreadableKey("EMAIL_SECRETS_KEY is not set")
            private = self._safe.open(row["sealed_key"])
        except UnreadableKey as error:
            log.error("DKIM key cannot be decrypted", domain=domain, selector=selector, reason=str(error))
            return replace(authority, flaw=str(error))
        signer = Signer(domain, selector, cast(KeyAlgorithm, row["algorithm"]), private)
        return replace(authority, signers=(*authority.signers, signer))


def _key(mail: StoredMail) -> Key:
    assert mail.letter is not None
    return mail.owner_id, mail.letter.sender.domain.lower()
