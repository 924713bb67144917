"""Work that the container tests have accepted, and how it ends."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import httpx

from support.deployment.composed import Composed, until

# After a restart of the broker a request may reach the queue of a service before the service itself: nobody
# answers it in its time, which is 504.
_WHILE_AWAY = (200, 503, 504)
_ENDS = ("delivered", "failed", "completed", "cancelled")


def letter(subject: str) -> dict[str, Any]:
    return {"to": ["ann@example.com"], "subject": subject, "text": "It works."}


def post(api: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(path, json=body)
    assert answer.is_success, answer.text
    return dict(answer.json())


def accept(api: httpx.Client, path: str, body: dict[str, Any]) -> str:
    """Return the path of the work that `path` has accepted."""
    answer = api.post(path, json=body)
    assert answer.status_code == 202, answer.text
    return f"{path}/{answer.json()['id']}"


def ended(api: httpx.Client, path: str) -> dict[str, Any]:
    """Return the work at `path` once it has ended; until then a service may be away for a moment."""

    def look() -> dict[str, Any] | None:
        answer = api.get(path)
        assert answer.status_code in _WHILE_AWAY, answer.text
        found = answer.json()
        return found if found["status"] in _ENDS else None

    return until(look, timeout_s=150)


def ends(api: httpx.Client, paths: Collection[str]) -> set[str]:
    """Return the statuses in which all work at `paths` has ended.

    Most of thousands has ended by now: a page of a list says it of two hundred, which else is a request each.
    """
    routes = {path.rpartition("/")[0] for path in paths}
    found = {path: status for route in routes for path, status in _listed(api, route)}
    return {found[path] if found.get(path) in _ENDS else ended(api, path)["status"] for path in paths}


def _listed(api: httpx.Client, route: str) -> Iterator[tuple[str, str]]:
    """Yield path and status of everything in the list at `route`; a service may be away for a moment."""
    wanted = {"limit": "200"}

    def ask() -> dict[str, Any] | None:
        answer = api.get(route, params=wanted)
        assert answer.status_code in _WHILE_AWAY, answer.text
        return dict(answer.json()) if answer.status_code == 200 else None

    while True:
        page = until(ask)
        for one in page["data"]:
            yield f"{route}/{one['id']}", one["status"]
        if page["next_cursor"] is None:
            return
        wanted["cursor"] = page["next_cursor"]


def subjects(stack: Composed) -> list[str]:
    return [message["Subject"] for message in stack.mailbox("/api/v1/messages?limit=500")["messages"]]
