"""The rights that a key can carry: one name each, used by every interface and by operations."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Scope(StrEnum):
    """A right of an API key; the effective rights are also limited by the role of its user."""

    QUOTES_READ = "quotes:read"
    ALERTS_READ = "alerts:read"
    ALERTS_WRITE = "alerts:write"
    EMAILS_SEND = "emails:send"
    EMAILS_READ = "emails:read"
    TEMPLATES_READ = "templates:read"
    BOUNCES_WRITE = "bounces:write"
    TEMPLATES_WRITE = "templates:write"
    DOMAINS_WRITE = "domains:write"
    BATCHES_READ = "batches:read"
    BATCHES_WRITE = "batches:write"
    SCHEDULES_READ = "schedules:read"
    SCHEDULES_WRITE = "schedules:write"
    CHAT_READ = "chat:read"
    CHAT_WRITE = "chat:write"
    WEBHOOKS_WRITE = "webhooks:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    ADMIN = "admin"


MEANINGS: Mapping[Scope, str] = {
    Scope.QUOTES_READ: "Read quotes and bars, and compute indicators of them.",
    Scope.ALERTS_READ: "Read your own price alerts.",
    Scope.ALERTS_WRITE: "Create and delete your own price alerts.",
    Scope.EMAILS_SEND: "Send e-mails.",
    Scope.EMAILS_READ: "Read your own e-mails and their delivery, and your sender domains.",
    Scope.BOUNCES_WRITE: "Submit mails that bounced; for the mail server. Only for administrators.",
    Scope.TEMPLATES_READ: "Read and preview your own mail templates.",
    Scope.TEMPLATES_WRITE: "Create, change and delete your own mail templates.",
    Scope.DOMAINS_WRITE: "Add, verify and remove sender domains, and rotate their DKIM keys.",
    Scope.BATCHES_READ: "Read your own batches and tasks, and the list of operations.",
    Scope.BATCHES_WRITE: "Create and cancel batches and tasks.",
    Scope.SCHEDULES_READ: "Read your own schedules and their runs.",
    Scope.SCHEDULES_WRITE: "Create, change, run and delete your own schedules; creating or running one also "
    "needs batches:write and the scopes of its operation.",
    Scope.CHAT_READ: "Read chat rooms, their messages and who is present.",
    Scope.CHAT_WRITE: "Create chat rooms and post messages.",
    Scope.WEBHOOKS_WRITE: "Create and change webhooks.",
    Scope.KEYS_READ: "List your own API keys.",
    Scope.KEYS_WRITE: "Create and revoke your own API keys.",
    Scope.USERS_READ: "Read all users.",
    Scope.USERS_WRITE: "Create and change users.",
    Scope.ADMIN: "Administer the installation: everything, for every owner. Only for administrators.",
}

# The scopes that a member can have; the others are reserved for administrators, whatever scopes the key has.
FOR_MEMBERS: frozenset[Scope] = frozenset(Scope) - {
    Scope.ADMIN,
    Scope.BOUNCES_WRITE,
    Scope.USERS_READ,
    Scope.USERS_WRITE,
}


def allowed(scopes: frozenset[Scope], *, is_administrator: bool) -> frozenset[Scope]:
    """Return the effective rights of a key: those of its scopes that the current role of its user allows."""
    if not is_administrator:
        return scopes & FOR_MEMBERS
    return frozenset(Scope) if Scope.ADMIN in scopes else scopes
