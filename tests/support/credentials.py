"""Every kind of credential that interfaces are tested with: valid ones by their scopes, and invalid ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from contracts.scopes import FOR_MEMBERS, Scope
from support.doubles.issuer import Issuer
from support.gateway_stack import RunningGateway

# As the issuer of access tokens knows the first administrator.
ADMINISTRATOR: Mapping[str, Any] = {"email": "admin@localhost", "email_verified": True}


@dataclass(frozen=True)
class Keys:
    """Keys of an administrator by the scope that they have alone, and by the one that they lack."""

    alone: Mapping[Scope, str]
    without: Mapping[Scope, str]
    useless: Mapping[str, str | None]
    # Of an administrator, who has every right by it, and of members, whatever scopes the keys say.
    admin_alone: str
    of_member_with_everything: str
    of_member_with_admin_alone: str


async def make(listener: RunningGateway, issuer: Issuer) -> Keys:
    """Make credentials of each kind at `listener`, which knows `issuer`."""
    every = [str(scope) for scope in Scope if scope is not Scope.ADMIN]
    alone: dict[Scope, str] = {
        scope: (await new_key(listener, scope))["key"] for scope in Scope if scope is not Scope.ADMIN
    }
    without: dict[Scope, str] = {
        scope: (await new_key(listener, *(other for other in every if other != scope)))["key"]
        for scope in alone
    }
    revoked = await new_key(listener, *every)
    assert (await listener.api.delete(f"/v1/api-keys/{revoked['id']}")).status_code == 204
    parent = await new_key(listener, *every)
    async with httpx.AsyncClient(
        base_url=str(listener.api.base_url), headers={"authorization": f"Bearer {parent['key']}"}
    ) as child_of:
        made = await child_of.post("/v1/api-keys", json={"name": "child", "scopes": ["quotes:read"]})
        assert made.status_code == 201, made.text
    assert (await listener.api.delete(f"/v1/api-keys/{parent['id']}")).status_code == 204
    expired = await new_key(listener, *every, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    await listener.database.execute(
        "UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1", expired["id"]
    )
    member = await listener.new_user()
    of_members = []
    for scopes in (list(Scope), [Scope.ADMIN]):
        # As an administrator's key is left when the user is made a member.
        found = await new_key(listener, *sorted(FOR_MEMBERS), user_id=member)
        await listener.database.execute(
            "UPDATE api_keys SET scopes = $2 WHERE id = $1", found["id"], list(map(str, scopes))
        )
        of_members.append(found["key"])
    admin_alone = (await new_key(listener, Scope.ADMIN))["key"]
    useless = {
        "none": None,
        "malformed": "tw_live_nonsense",
        "unknown": "tw_live_0123456789abcdef_" + "a" * 43,
        "revoked": revoked["key"],
        "expired": expired["key"],
        "parent revoked": made.json()["key"],
        "token expired": issuer.token(scope="admin", lasts_s=-60, **ADMINISTRATOR),
        # Refused for its audience, so it must not expire while a busy machine uses it for a whole matrix.
        "token for others": issuer.token(
            scope="admin", lasts_s=3600, aud="https://other.example.com", **ADMINISTRATOR
        ),
    }
    return Keys(alone, without, useless, admin_alone, *of_members)


async def new_key(listener: RunningGateway, *scopes: str, user_id: int = 1, **more: object) -> dict[str, str]:
    body = {"name": "matrix", "scopes": list(scopes), "user_id": user_id, **more}
    answer = await listener.api.post("/v1/api-keys", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()
    return found
