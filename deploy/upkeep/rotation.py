"""Rotation of secrets: server, file and process change together, and the old secret is proved invalid."""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from native.postgres import NEXT_OF_SUPERUSER
from upkeep.errors import NOTHING_RUNS, UpkeepError, variable_wins
from upkeep.installation import DATABASES, SERVICES, Installation, query

Say = Callable[[str], None]

BROKER_USERS = (*SERVICES, "admin")
_GROUPS = ("postgres", "rabbitmq")
# Secrets that somebody else sets: the service that uses each, and who sets it.
OF_OTHERS = {"smtp-password": ("email", "the relay"), "alpaca-secret-key": ("stock-data", "Alpaca")}
# A gateway caches the database's answer about a key for 5 s, and writes every 30 s when keys were used.
_FORGOTTEN_S = 10
_SEALED_WITHIN_S = 60
_SECRETS_KEY, _BEFORE = "email-secrets-key", "email-previous-secrets-key"
# The new pepper until all gateways hash with it; an interrupted rotation continues with it.
_NEXT = "next-pepper"
# Of the logins, only this one cannot be set again by another: its new password is written down before the
# server gets it, in a secret of its own, because until then the old one is in force.
_SUPERUSER = "postgres-postgres"
# The secret in which a rotation keeps the old one.
_OLD = {"pepper": ("previous-pepper",), _SECRETS_KEY: (_BEFORE,)}
# Mail servers give up after five days at most (RFC 5321 4.5.4.1), and then the mail bounces.
_BOUNCES_FOR = timedelta(days=5)
_REFUSED = "The gateway refuses the bootstrap key under the new pepper."


def names(installation: Installation) -> list[str]:
    """Return the names of the secrets that can be rotated; the name of a group rotates all its secrets."""
    roles = [f"postgres-{role}" for role in installation.roles]
    users = [f"rabbitmq-{user}" for user in BROKER_USERS]
    return ["api-key", "pepper", _SECRETS_KEY, *OF_OTHERS, *_GROUPS, *roles, *users]


def rotate(
    installation: Installation,
    name: str,
    *,
    new: str | None,
    finish: bool,
    say: Say,
    now: bool = False,
) -> None:
    """Rotate the secret `name`; `new` is the new value, if somebody else chooses it.

    `finish` ends the overlap in which the old one is valid, too; `now` allows that before its time.
    """
    if not installation.is_running:
        raise UpkeepError(NOTHING_RUNS)
    for one in (name, *_OLD.get(name, ())):
        if variable := installation.set_by_hand(one):
            raise variable_wins(variable)
    if name == "api-key":
        _rotate_api_key(installation, say)
    elif name == "pepper":
        _finish_pepper(installation, say) if finish else _rotate_pepper(installation, say)
    elif name == _SECRETS_KEY:
        if finish:
            _finish_secrets_key(installation, say, now=now)
        else:
            _rotate_secrets_key(installation, say)
    elif name in OF_OTHERS:
        service, owner = OF_OTHERS[name]
        if not new:
            raise UpkeepError(f"{name} is set by {owner}: NEW_SECRET=… make rotate SECRET={name}")
        installation.put({name: new})
        installation.restart(service)
        say(f"{name}: {service} has restarted and uses the new one. End the old one with {owner}.")
    elif name in names(installation):
        for one in names(installation):
            if one not in _GROUPS and (one == name or (name in _GROUPS and one.startswith(f"{name}-"))):
                _rotate_login(installation, one, say)
    else:
        raise UpkeepError(f"There is no secret {name!r}; the secrets are: {', '.join(names(installation))}.")


def _rotate_api_key(installation: Installation, say: Say) -> None:
    old = installation.secret("api-key")
    status, answer = installation.ask(f"/v1/api-keys/{old[8:24]}/rotate", key=old, body={"overlap_s": 0})
    if status != 200:
        raise UpkeepError(
            f"The gateway does not rotate the bootstrap key (HTTP {status}: {answer.get('detail', answer)}). "
            "If it no longer works, make another one: make keys-reset."
        )
    installation.put({"api-key": answer["key"]})
    # The gateway reads the key at its start, and reports one that does not work.
    installation.restart("gateway")
    _require(_key_status(installation, answer["key"]) == 200, "The gateway refuses the new key.")
    _require(_key_status(installation, old) == 401, "The gateway still accepts the old key.")
    say("api-key: the new one is in its file and works; the old one gets 401.")


def _rotate_pepper(installation: Installation, say: Say) -> None:
    """Make a new pepper known to every gateway before any of them stores a key under it.

    A gateway stores each key that is used under its own pepper, and refuses keys of a pepper that it does
    not know. An interrupted rotation continues with the step that it had reached.
    """
    present, new = installation.secret("pepper"), installation.secret(_NEXT)
    if not new:
        if installation.secret("previous-pepper"):
            raise UpkeepError(
                "The pepper is being rotated already: end that with "
                "`make rotate SECRET=pepper ARGS=--finish`."
            )
        new = secrets.token_urlsafe(32)
        installation.put({_NEXT: new})
    if present != new:
        installation.put({"previous-pepper": new})
        _restart_gateways(installation)
        say("pepper: all gateways know the new one; now they begin to hash with it.")
        installation.put({"previous-pepper": present, "pepper": new})
    _restart_gateways(installation)
    installation.put({_NEXT: ""})
    say(
        "pepper: the new one is in force. Each key is hashed with it when it is next used. Later, end the "
        "overlap with `make rotate SECRET=pepper ARGS=--finish`, which lists the keys that were not used."
    )


def _restart_gateways(installation: Installation) -> None:
    installation.restart("gateway")
    _require(_key_status(installation, installation.secret("api-key")) == 200, _REFUSED)


def _finish_pepper(installation: Installation, say: Say) -> None:
    if installation.secret(_NEXT):
        raise UpkeepError("The rotation of the pepper was interrupted: `make rotate SECRET=pepper` first.")
    if not installation.secret("previous-pepper"):
        raise UpkeepError("The pepper is not being rotated.")
    if webhooks := _webhooks_of_the_old_pepper(installation):
        raise UpkeepError(
            f"The secrets of {webhooks} webhooks are not encrypted with the new pepper yet. A gateway does "
            "that when it starts, and every ten minutes: try again then, or see its log."
        )
    # Until the rotation was complete, a gateway may have stored a key under the old pepper again.
    changed_at = max(installation.changed_at("pepper"), installation.changed_at(_NEXT))
    began = datetime.fromtimestamp(changed_at, UTC).isoformat()
    # Use is written every 30 seconds.
    time.sleep(max(0.0, changed_at + 35 - time.time()))
    unused = query(
        installation,
        "gateway",
        "SELECT id || ' (' || name || ')' FROM api_keys WHERE revoked_at IS NULL "
        "AND (expires_at IS NULL OR expires_at > now()) "
        f"AND created_at < '{began}' AND (last_used_at IS NULL OR last_used_at < '{began}') ORDER BY id;",
    )
    installation.put({"previous-pepper": ""})
    _restart_gateways(installation)
    say("pepper: the old one is removed.")
    if unused:
        told = "These keys were not used meanwhile and no longer work; rotate or revoke them:"
        say("\n  ".join((told, *unused.splitlines())))


def _webhooks_of_the_old_pepper(installation: Installation) -> int:
    """Return the number of webhooks whose secrets nobody could read without the old pepper."""
    # As `gateway.identity.keys.fingerprint` makes it.
    old = hmac.digest(installation.secret("previous-pepper").encode(), b"which pepper", "sha256")[:4].hex()
    webhooks = f"SELECT count(*) FROM webhooks WHERE sealed_with = '{old}' AND status <> 'deleted';"
    return int(query(installation, "gateway", webhooks))


def _rotate_secrets_key(installation: Installation, say: Say) -> None:
    present, previous = installation.secret(_SECRETS_KEY), installation.secret(_BEFORE)
    is_under_way = previous not in ("", present)
    if is_under_way and not _sealed_otherwise(installation):
        raise UpkeepError(
            f"{_SECRETS_KEY} is being rotated already: end that with "
            f"`make rotate SECRET={_SECRETS_KEY} ARGS=--finish`."
        )
    if not is_under_way:
        # Otherwise a rotation was interrupted: its second half is repeated.
        installation.put({_BEFORE: present, _SECRETS_KEY: secrets.token_urlsafe(32)})
    installation.restart("email")
    deadline = time.monotonic() + _SEALED_WITHIN_S
    while left := _sealed_otherwise(installation):
        _require(time.monotonic() < deadline, f"{left} DKIM keys are not re-encrypted yet.")
        time.sleep(0.5)
    say(f"{_SECRETS_KEY}: the new one is in force, and all DKIM keys are encrypted with it.")
    if _may_bounce(installation):
        say(
            "Mails sent before have return paths signed with the old one, and may bounce until "
            f"{_bounced_until(installation):%Y-%m-%d %H:%M} UTC: after that, remove the old one with "
            f"`make rotate SECRET={_SECRETS_KEY} ARGS=--finish`."
        )
    else:
        _forget_secrets_key(installation, say)


def _finish_secrets_key(installation: Installation, say: Say, *, now: bool) -> None:
    if not installation.secret(_BEFORE):
        raise UpkeepError(f"{_SECRETS_KEY} is not being rotated.")
    left = _sealed_otherwise(installation)
    _require(not left, f"{left} DKIM keys need the old one: `make rotate SECRET={_SECRETS_KEY}` first.")
    until = _bounced_until(installation)
    if _may_bounce(installation) and datetime.now(UTC) < until and not now:
        raise UpkeepError(
            f"Mails sent before the rotation may bounce until {until:%Y-%m-%d %H:%M} UTC, and these bounces "
            "are refused without the old one. Wait, or, if it has leaked, end the overlap at once: "
            f"make rotate SECRET={_SECRETS_KEY} ARGS='--finish --now'."
        )
    _forget_secrets_key(installation, say)


def _forget_secrets_key(installation: Installation, say: Say) -> None:
    installation.put({_BEFORE: ""})
    installation.restart("email")
    say(f"{_SECRETS_KEY}: the old one is removed: no DKIM key needs it, and its return paths are invalid.")


def _may_bounce(installation: Installation) -> bool:
    """Return whether mails are sent with signed return paths."""
    settings = installation.settings()["email"]
    return bool(settings.get("EMAIL_BOUNCE_DOMAIN") or settings.get("EMAIL_RETURN_PATH_TARGET"))


def _bounced_until(installation: Installation) -> datetime:
    return datetime.fromtimestamp(installation.changed_at(_SECRETS_KEY), UTC) + _BOUNCES_FOR


def _sealed_otherwise(installation: Installation) -> int:
    """Return the number of DKIM keys that are encrypted with another secret than the current one."""
    # As `emailer.domains.keys` derives it (HKDF, RFC 5869); the first half of a Fernet key signs.
    extracted = hmac.digest(bytes(32), installation.secret(_SECRETS_KEY).encode(), "sha256")
    signing_key = hmac.digest(extracted, b"tickwire dkim keys\x01", "sha256")[:16]
    rows = query(installation, "emailer", "SELECT encode(sealed_key, 'hex') FROM domain_keys;").split()
    tokens = [base64.urlsafe_b64decode(bytes.fromhex(row)) for row in rows]
    return sum(token[-32:] != hmac.digest(signing_key, token[:-32], "sha256") for token in tokens)


def _rotate_login(installation: Installation, name: str, say: Say) -> None:
    kind, _, user = name.partition("-")
    if name == _SUPERUSER:
        pending = installation.secret(NEXT_OF_SUPERUSER)
        if pending and _may_log_in(installation, kind, user, pending):
            # An earlier rotation ended before it had written the file.
            installation.put({name: pending})
    old, new = installation.secret(name), secrets.token_urlsafe(24)
    if name == _SUPERUSER:
        installation.put({NEXT_OF_SUPERUSER: new})
    if kind == "postgres":
        # The server must not log the statement with the password.
        quiet = "SET log_min_duration_statement = -1; SET log_statement = 'none';"
        query(installation, "postgres", f"{quiet} ALTER ROLE \"{user}\" PASSWORD '{new}';")
        process = {database: service for service, database in DATABASES.items()}.get(user)
    else:
        installation.rabbitmqctl("change_password", user).run(new + "\n")
        process = user if user in SERVICES else None
    # Only now: a process that starts at this moment must find a password that the server accepts.
    installation.put({name: new})
    if name == _SUPERUSER:
        installation.put({NEXT_OF_SUPERUSER: ""})
    if process is not None:
        installation.restart(process)
    elif user == "metrics":
        installation.restart("postgres-exporter")
    _require(_may_log_in(installation, kind, user, new), f"{kind} refuses the new password of {user}.")
    _require(
        not _may_log_in(installation, kind, user, old), f"{kind} still accepts the old password of {user}."
    )
    say(f"{name}: changed{'' if process is None else f', {process} restarted'}; the old one is refused.")


def _may_log_in(installation: Installation, kind: str, user: str, password: str) -> bool:
    if kind == "postgres":
        return installation.login(user, password).attempt().returncode == 0
    return installation.rabbitmqctl("authenticate_user", user).attempt(password + "\n").returncode == 0


def _key_status(installation: Installation, key: str) -> int:
    deadline = time.monotonic() + _FORGOTTEN_S
    while True:
        status, _ = installation.ask("/v1/me", key=key)
        if status in (200, 401) or time.monotonic() > deadline:
            return status
        time.sleep(0.2)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UpkeepError(
            f"{otherwise} Nothing was rolled back: run the same command again, or see the service's log."
        )
