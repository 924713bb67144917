"""The caller: its rights, and the challenge for those that it lacks."""

from __future__ import annotations

import pytest

from chassis.errors import Forbidden
from contracts.scopes import Scope
from gateway.http.principal import Principal

MEMBER = Principal(2, "Ann", "member", "k", frozenset({Scope.QUOTES_READ}))


def test_a_caller_may_do_only_what_its_rights_allow() -> None:
    assert MEMBER.may(Scope.QUOTES_READ)
    assert not MEMBER.may(Scope.EMAILS_SEND)
    assert (MEMBER.owner_id, MEMBER.is_admin) == ("2", False)


def test_a_missing_right_is_named_in_the_error_and_in_its_challenge() -> None:
    MEMBER.require(Scope.QUOTES_READ)
    with pytest.raises(Forbidden, match="emails:send chat:write") as refusal:
        MEMBER.require(Scope.QUOTES_READ, Scope.EMAILS_SEND, Scope.CHAT_WRITE)
    assert refusal.value.headers["www-authenticate"] == (
        'Bearer realm="tickwire", error="insufficient_scope", scope="emails:send chat:write"'
    )
