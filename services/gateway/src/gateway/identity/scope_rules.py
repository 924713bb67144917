"""Rules that map the claims of an access token to scopes."""

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
    """Grants `scopes` to tokens with `value` in `claim`; without scopes, the scope that `value` names."""

    claim: str
    value: str
    scopes: frozenset[Scope]


def read_rules(text: str) -> tuple[ScopeRule, ...]:
    """Return the rules in `text`: `groups[ops]=admin;scope[*]=*`. Raise `ValueError` for anything else."""
    rules = []
    for part in filter(None, map(str.strip, text.split(";"))):
        found = _RULE.fullmatch(part)
        if found is None:
            raise ValueError(f"{part!r} is not a rule: <claim>[<value>]=<scope>,<scope>, or <claim>[*]=*")
        if found["scopes"] == _ANY and found["value"] != _ANY:
            raise ValueError(f"{part!r} would grant everything: name the scopes, or write [*]=*")
        names = [] if found["scopes"] == _ANY else found["scopes"].split(",")
        unknown = [name for name in names if name not in frozenset(map(str, Scope))]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a scope; the scopes are {', '.join(Scope)}")
        rules.append(ScopeRule(found["claim"], found["value"], frozenset(map(Scope, names))))
    return tuple(rules)


def granted(rules: Sequence[ScopeRule], claims: Mapping[str, Any]) -> frozenset[Scope]:
    """Return the scopes that the rules grant for `claims`."""
    scopes: set[Scope] = set()
    for rule in rules:
        values = frozenset(_values(claims, rule.claim))
        if not rule.scopes:
            scopes.update(scope for scope in Scope if scope in values)
        elif rule.value in values or (rule.value == _ANY and values):
            scopes |= rule.scopes
    return frozenset(scopes)


def _values(claims: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the values of a claim: the words of a string, or the strings of a list.

    `realm_access.roles` is a claim of that name, or else the claim `roles` within `realm_access`.
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
