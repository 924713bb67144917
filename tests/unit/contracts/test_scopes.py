"""Effective rights: the scopes of a key within the role of its user."""

from __future__ import annotations

import pytest

from contracts import scopes
from contracts.scopes import Scope


def test_every_scope_has_a_meaning_in_words() -> None:
    assert set(scopes.MEANINGS) == set(Scope)
    assert all(meaning.endswith(".") for meaning in scopes.MEANINGS.values())


@pytest.mark.parametrize("scope", [Scope.ADMIN, Scope.BOUNCES_WRITE, Scope.USERS_READ, Scope.USERS_WRITE])
def test_a_member_cannot_use_the_scopes_of_administrators(scope: Scope) -> None:
    assert scopes.allowed(frozenset({scope, Scope.CHAT_READ}), is_administrator=False) == {Scope.CHAT_READ}


def test_the_admin_scope_of_an_administrator_covers_everything() -> None:
    assert scopes.allowed(frozenset({Scope.ADMIN}), is_administrator=True) == set(Scope)


def test_an_administrator_without_the_admin_scope_has_the_scopes_of_the_key_alone() -> None:
    assert scopes.allowed(frozenset({Scope.QUOTES_READ}), is_administrator=True) == {Scope.QUOTES_READ}
