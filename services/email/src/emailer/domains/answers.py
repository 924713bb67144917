"""Answers to requests about sender domains: each owner sees and changes its own only."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from chassis import threads
from chassis.broker.answering import Answer
from chassis.deadlines import Deadline
from chassis.errors import Conflict, NotFound
from chassis.paging import page_of
from chassis.postgres import Connection, Postgres
from contracts.domains import (
    CreateDomain,
    DeleteDomain,
    DkimKey,
    DnsRecord,
    Domain,
    Domains,
    GetDomain,
    KeyAlgorithm,
    ListDomains,
    RotateDkim,
    VerifyDomain,
    domain_name,
)
from contracts.message import Next, Request
from emailer.domains import keys, records, repository, stored
from emailer.domains.checking import DomainChecks
from emailer.domains.keys import KeySafe, NewSigningKey
from emailer.domains.records import RecordSettings
from emailer.domains.stored import Finding, StoredDomain
from emailer.errors import DomainChangedMeanwhile, DomainExists, NoSecretsKey, TooManyDomains

MOST_KEYS = 10
# A domain with its records and their findings has up to 20 KB.
MOST_ON_PAGE = 50
_ALGORITHMS: tuple[KeyAlgorithm, ...] = ("rsa", "ed25519")
_FIRST_CHECK = timedelta(minutes=1)
# A check that was made within this time is not repeated.
_FRESH = timedelta(seconds=3)
_CHECK_WITHIN = timedelta(minutes=5)


class DomainAnswers:
    """Creates, shows, checks and removes domains. Another owner's domain is not found."""

    def __init__(
        self,
        postgres: Postgres,
        checks: DomainChecks,
        safe: KeySafe | None,
        settings: RecordSettings,
        *,
        most_of_owner: int,
        announced: Callable[[], None],
    ) -> None:
        self._postgres = postgres
        self._checks = checks
        self._safe = safe
        self._settings = settings
        self._most_of_owner = most_of_owner
        self._announced = announced

    @property
    def table(self) -> dict[type[Request], Answer]:
        """The handler of each request."""
        return {
            CreateDomain: self.create,
            GetDomain: self.get,
            ListDomains: self.list,
            VerifyDomain: self.verify,
            RotateDkim: self.rotate,
            DeleteDomain: self.delete,
        }

    async def create(self, request: CreateDomain, _: Deadline) -> Domain:
        """Store a domain; without EMAIL_SECRETS_KEY it has no DKIM keys.

        Raise `DomainExists` or `TooManyDomains`.
        """
        wanted = request.model_copy(update={"name": domain_name(request.name)})
        async with self._postgres.connection() as connection:
            # Looked up first, to avoid making keys in vain.
            known = await self._known(connection, wanted)
        if known is not None:
            return self._shown(known)
        now = datetime.now(UTC)
        made = [] if self._safe is None else await self._new_keys(self._safe, now)
        async with self._postgres.transaction() as connection:
            await repository.lock_owner(connection, request.owner_id)
            known = await self._known(connection, wanted)
            domain = known or await repository.insert(
                connection,
                wanted,
                token=secrets.token_hex(16),
                return_path_host=f"bounces.{wanted.name}",
                at=now,
                check_at=now + _FIRST_CHECK,
                keys=made,
            )
        return self._shown(domain)

    async def get(self, request: GetDomain, _: Deadline) -> Domain:
        """Return a domain as its last check found it."""
        return self._shown(await self._find(request.domain_id, request.owner_id))

    async def list(self, request: ListDomains, _: Deadline) -> Domains:
        """Return a page of at most 50 of the owner's domains, newest first."""
        limit = min(request.limit, MOST_ON_PAGE)
        async with self._postgres.connection() as connection:
            found = await repository.page(connection, request, limit=limit + 1)
        page, following = page_of(found, limit, lambda domain: domain.id)
        return Domains(data=[self._shown(domain) for domain in page], next_cursor=following)

    async def verify(self, request: VerifyDomain, _: Deadline) -> Domain:
        """Check the records now, and return the updated domain."""
        domain = await self._find(request.domain_id, request.owner_id)
        if domain.checked_at is not None and datetime.now(UTC) - domain.checked_at < _FRESH:
            return self._shown(domain)
        checked = await self._checks.check(domain)
        if checked is None:
            raise _not_found(request.domain_id)
        return self._shown(checked)

    async def rotate(self, request: RotateDkim, _: Deadline) -> Domain:
        """Make new keys; once their records are found they sign, and the old ones retire.

        New keys whose records were never found are replaced. Raise `NoSecretsKey`, `Conflict`.
        """
        if self._safe is None:
            raise NoSecretsKey(
                "This installation keeps no DKIM keys: its operator has not set EMAIL_SECRETS_KEY."
            )
        # Checked first, to avoid making keys in vain, and again once the domain is locked.
        seen = await self._find(request.domain_id, request.owner_id)
        if _is_done(seen, request):
            return self._shown(seen)
        now = datetime.now(UTC)
        made = await self._new_keys(self._safe, now)
        async with self._postgres.transaction() as connection:
            domain = await self._lock(connection, request.domain_id, request.owner_id)
            if _is_done(domain, request):
                return self._shown(domain)
            kept = tuple(key for key in domain.keys if key.state != "pending")
            changed = replace(
                domain,
                keys=kept,
                version=domain.version + 1,
                check_at=now + _FIRST_CHECK,
                rotation_key=request.request_key,
            )
            await repository.save(connection, changed)
            await repository.insert_keys(connection, domain.id, made, at=now)
        return self._shown(await self._find(request.domain_id, request.owner_id))

    async def delete(self, request: DeleteDomain, _: Deadline) -> Domain:
        """Remove a domain, and return it as it was.

        The end of one that was never verified is announced to nobody: a gateway would keep a record of each.
        """
        async with self._postgres.transaction() as connection:
            domain = await self._lock(connection, request.domain_id, request.owner_id)
            _require(domain, request.version)
            await repository.delete(connection, domain.id)
            if domain.verified_at is not None:
                gone = replace(domain, version=domain.version + 1)
                await repository.announce(connection, gone, is_verified=False)
        self._announced()
        return self._shown(domain)

    async def _known(self, connection: Connection, wanted: CreateDomain) -> StoredDomain | None:
        """Return the domain if this request has created it already. Raise when no domain may be created."""
        if wanted.request_key is not None:
            known = await repository.find_of_request(connection, wanted.owner_id, wanted.request_key)
            if known is not None:
                return known
        if await repository.find_named(connection, wanted.owner_id, wanted.name) is not None:
            raise DomainExists(f"You already have this domain; see GET /v1/domains?name={wanted.name}.")
        if await repository.count_of_owner(connection, wanted.owner_id) >= self._most_of_owner:
            raise TooManyDomains(f"One owner may have {self._most_of_owner} domains; remove one first.")
        return None

    async def _find(self, domain_id: UUID, owner_id: str) -> StoredDomain:
        async with self._postgres.connection() as connection:
            found = await repository.find(connection, domain_id, owner_id)
        if found is None:
            raise _not_found(domain_id)
        return found

    async def _lock(self, connection: Connection, domain_id: UUID, owner_id: str) -> StoredDomain:
        found = await repository.lock(connection, domain_id)
        if found is None or found.owner_id != owner_id:
            raise _not_found(domain_id)
        return found

    async def _new_keys(self, safe: KeySafe, at: datetime) -> Sequence[NewSigningKey]:
        # 100 ms of CPU time.
        return await threads.run(lambda: [keys.make(safe, algorithm, at=at) for algorithm in _ALGORITHMS])

    def _shown(self, domain: StoredDomain) -> Domain:
        return Domain(
            id=domain.id,
            name=domain.name,
            status=domain.status,
            version=domain.version,
            created_at=domain.created_at,
            verified_at=domain.verified_at,
            checked_at=domain.checked_at,
            return_path_host=domain.return_path_host,
            records=[
                _record(record, domain.findings.get(record.key, Finding("unchecked")))
                for record in records.expected(domain, self._settings)
            ],
            dkim=[
                DkimKey(
                    selector=key.selector,
                    algorithm=key.algorithm,
                    state=key.state,
                    created_at=key.created_at,
                    active_since=key.active_at,
                    remove_record_after=key.retire_at,
                )
                for key in domain.keys
            ],
            next=None
            if domain.check_at is None
            else Next(what="the next check of the records", by=domain.check_at + _CHECK_WITHIN),
        )


def _record(record: records.Expected, finding: Finding) -> DnsRecord:
    return DnsRecord(
        purpose=record.purpose,
        type=record.type,
        name=record.name,
        value=record.value,
        required=record.is_required,
        state=finding.state,
        # Cut again: the previous release stored more values.
        found=list(stored.shown(finding.values)),
        last_found_at=finding.last_found_at,
        inherited_from=finding.inherited_from,
    )


def _is_done(domain: StoredDomain, request: RotateDkim) -> bool:
    """Return whether this request has made keys already. Raise when it may not make any."""
    if request.request_key is not None and request.request_key == domain.rotation_key:
        return True
    _require(domain, request.version)
    kept = sum(key.state != "pending" for key in domain.keys)
    if kept + len(_ALGORITHMS) > MOST_KEYS:
        raise Conflict(f"The domain has {kept} keys that are active or retiring; wait until one is removed.")
    return False


def _require(domain: StoredDomain, version: int | None) -> None:
    if version is not None and version != domain.version:
        raise DomainChangedMeanwhile(
            f"The domain {domain.name} has changed since version {version}; read it again and retry."
        )


def _not_found(domain_id: UUID) -> NotFound:
    return NotFound(f"There is no domain {domain_id}.")
