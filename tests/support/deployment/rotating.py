"""The rotation of every secret while work is accepted, on the stack of any way of running."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TypeVar

from upkeep import rotation
from upkeep.installation import Installation

T = TypeVar("T")


def rotate_all(upkeep: Installation, load: AbstractContextManager[T]) -> T:
    """Rotate every secret, all but the callers' own key during `load`; assert that only the new ones work."""
    names = set(rotation.names(upkeep)) - {"postgres", "rabbitmq"}
    old = {name: upkeep.secret(name) for name in names}
    rotation.rotate(upkeep, "api-key", new=None, finish=False, say=print)
    assert upkeep.ask("/v1/me", key=old["api-key"])[0] == 401
    with load as answers:
        for name in ("pepper", "email-secrets-key", *rotation.OF_OTHERS, "postgres", "rabbitmq"):
            rotation.rotate(upkeep, name, new="of the relay", finish=False, say=print)
        rotation.rotate(upkeep, "pepper", new=None, finish=True, say=print)
    assert {name for name in names if upkeep.secret(name) == old[name]} == set()
    logins = [name for name in names if name.startswith(("postgres-", "rabbitmq-"))]
    assert [name for name in logins if may_log_in(upkeep, name, old[name])] == []
    assert [name for name in logins if not may_log_in(upkeep, name, upkeep.secret(name))] == []
    return answers


def may_log_in(upkeep: Installation, name: str, password: str) -> bool:
    """Return whether the server itself accepts a password, `postgres-<role>` or `rabbitmq-<user>`."""
    kind, _, user = name.partition("-")
    if kind == "postgres":
        return upkeep.login(user, password).attempt().returncode == 0
    return upkeep.rabbitmqctl("authenticate_user", user).attempt(password + "\n").returncode == 0
