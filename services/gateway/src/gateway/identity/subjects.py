"""The user of an access token: its subject is found, linked to a user, or becomes a new user."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from chassis.postgres import Connection, Row
from contracts.addresses import BareAddress
from contracts.scopes import Scope, allowed
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.http.principal import TOKEN_PREFIX, Principal
from gateway.identity import user_repository
from gateway.identity.access_tokens import Claims
from gateway.identity.refusals import RefusedAtSight, refusal

_ADDRESS: TypeAdapter[str] = TypeAdapter(BareAddress)
_SHOWN_BYTES = 8


class Subjects:
    """Finds users by the issuer and subject of their tokens.

    A new subject is linked to the user with its verified e-mail address. Without such a user it becomes a new
    user with the role member, if `creates_users`.
    """

    def __init__(self, *, audit: AuditTrail, creates_users: bool) -> None:
        self._audit = audit
        self._creates_users = creates_users

    async def find(self, connection: Connection, claims: Claims, fingerprint: bytes) -> Principal:
        """Return the user of a token with its current rights. Raise `Unauthenticated` if there is none."""
        known = (claims.issuer, claims.subject)
        token_id = f"{TOKEN_PREFIX}{fingerprint[:_SHOWN_BYTES].hex()}"
        user = await user_repository.find_by_subject(connection, *known)
        if user is None:
            # One request creates the user of a subject; concurrent ones wait and find it here.
            await user_repository.lock_subject(connection, *known)
            user = await user_repository.find_by_subject(connection, *known)
        if user is None:
            user = await self._link(connection, claims, token_id)
        principal = _principal(user, token_id, claims.scopes, claims.ends_at)
        if principal is None:
            raise refusal("unknown-user", "The user of the access token is disabled.", kind=RefusedAtSight)
        return principal

    async def renew(self, connection: Connection, principal: Principal) -> Principal | None:
        """Return the caller of a token with the current rights of its user; None if the user has none."""
        user = await user_repository.get(connection, principal.user_id)
        if user is None or principal.ends_at is None:
            return None
        return _principal(user, principal.key_id, principal.granted, principal.ends_at)

    async def _link(self, connection: Connection, claims: Claims, token_id: str) -> Row:
        """Link the subject to a user, and return the user."""
        user = None
        if claims.email is not None:
            user = await user_repository.find_by_address(connection, claims.email)
        is_new = user is None
        if user is None:
            if not self._creates_users:
                raise refusal(
                    "unknown-user",
                    "No user here has the verified e-mail address of the access token.",
                    kind=RefusedAtSight,
                )
            try:
                address = _ADDRESS.validate_python(claims.email)
            except ValidationError:
                # A reserved address that receives no mail (RFC 2606); an administrator can change it.
                digest = hashlib.sha256(f"{claims.issuer}\n{claims.subject}".encode()).hexdigest()
                address = f"{digest[:32]}@signed-in.invalid"
            name = claims.name or claims.subject[:200]
            user = await user_repository.insert(connection, name=name, email=address, role="member")
        await user_repository.add_subject(connection, user["id"], claims.issuer, claims.subject)
        about = {"issuer": claims.issuer, "subject": claims.subject}
        after = {"name": user["name"], "email": user["email"], "role": user["role"]} if is_new else {}
        actor = Principal(user["id"], user["name"], user["role"], token_id, frozenset())
        action = Action.USER_CREATED if is_new else Action.USER_LINKED
        await self._audit.record(connection, actor, action, f"user:{user['id']}", after={**after, **about})
        return user


def _principal(user: Row, token_id: str, granted: frozenset[Scope], ends_at: float) -> Principal | None:
    if user["status"] != "active":
        return None
    return Principal(
        user["id"],
        user["name"],
        user["role"],
        token_id,
        allowed(granted, is_administrator=user["role"] == "admin"),
        datetime.fromtimestamp(ends_at, UTC),
        granted,
        ends_at=ends_at,
    )
