"""Which scopes the claims of a token stand for."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.scopes import Scope
from gateway.identity.scope_rules import granted, read_rules


@pytest.mark.parametrize(
    ("rules", "claims", "expected"),
    [
        ("scope[*]=*", {"scope": "quotes:read openid chat:read"}, {"quotes:read", "chat:read"}),
        ("scope[*]=*", {"scope": ["quotes:read"]}, {"quotes:read"}),
        ("scope[*]=*", {"scp": "quotes:read"}, set()),
        ("groups[ops]=admin", {"groups": ["ops", "x"]}, {"admin"}),
        ("groups[ops]=admin", {"groups": "oops ops-team"}, set()),
        ("groups[ops]=admin", {"groups": [["ops"], {"ops": 1}, 7, None]}, set()),
        ("groups[*]=quotes:read", {"groups": ["anything"]}, {"quotes:read"}),
        ("groups[*]=quotes:read", {"groups": []}, set()),
        ("realm_access.roles[trader]=quotes:read", {"realm_access": {"roles": ["trader"]}}, {"quotes:read"}),
        ("https://x/roles[a b]=quotes:read", {"https://x/roles": ["a b"]}, {"quotes:read"}),
        (
            "a[x]=quotes:read,chat:read; b[y]=emails:send",
            {"a": "x", "b": "y"},
            {"quotes:read", "chat:read", "emails:send"},
        ),
        ("", {"scope": "admin"}, set()),
    ],
)
def test_claims_grant_what_the_rules_say(rules: str, claims: dict[str, Any], expected: set[str]) -> None:
    assert granted(read_rules(rules), claims) == {Scope(name) for name in expected}


@pytest.mark.parametrize(
    "rules",
    ["scope", "scope[*]", "scope[x]=*", "scope[x]=lost:read", "[x]=admin", "scope[]=admin", "a[x]=ADMIN"],
)
def test_an_invalid_rule_is_refused(rules: str) -> None:
    with pytest.raises(ValueError, match=r"rule|scope|everything"):
        read_rules(rules)
