"""Rules that say which scopes the claims of an access token stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.scopes import Scope

_RULE = re.compile(r"(?P<claim>[^\s\[\]=;]+)\[(?P<value>[^\[\];]+)\]=(?P<scopes>\*|[a-z:]+(,[a-z:]+)*)")
_ANY = "*"


@dataclass(frozen=True, slots=True)
class ScopeRule:
    """Who has `value` in `claim` has `scopes`; without scopes each value stands for the scope of its name."""

    claim: str
    value: str
    scopes: frozenset[Scope]


def read_rules(text: str) -> tuple[ScopeRule, ...]:
    """Return the rules in `text`: `groups[ops]=admin;scope[*]=*`. Raise `ValueError` for anything else."""
    return tuple(_rule(part.strip()) for part in text.split(";") if part.strip())


def _rule(text: str) -> ScopeRule:
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no rule: <claim>[<value>]=<scope>,<scope>, or <claim>[*]=*")
    claim, value, scopes = found["claim"], found["value"], found["scopes"]
    if scopes == _ANY:
        if value != _ANY:
            raise ValueError(f"{text!r} would grant everything: name the scopes, or write {claim}[*]=*")
        return ScopeRule(claim, value, frozenset())
    unknown = [name for name in scopes.split(",") if name not in frozenset(map(str, Scope))]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no scope; the scopes are {', '.join(Scope)}")
    return ScopeRule(claim, value, frozenset(Scope(name) for name in scopes.split(",")))


def granted(rules: Sequence[ScopeRule], claims: Mapping[str, Any]) -> frozenset[Scope]:
    """Return the scopes that the rules find in `claims`."""
    scopes: set[Scope] = set()
    for rule in rules:
        values = frozenset(_values(claims, rule.claim))
        if not rule.scopes:
            scopes.update(scope for scope in Scope if scope in values)
        elif rule.value in values or (rule.value == _ANY and values):
            scopes |= rule.scopes
    return frozenset(scopes)


def _values(claims: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the values of a claim: the parts of a text, or the texts of a list.

    `realm_access.roles` is a claim of that name, or the claim `roles` within `realm_access`.
    """
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        yield from found.split()
    elif isinstance(found, list):
        yield from (value for value in found if isinstance(value, str))
