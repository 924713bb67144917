"""Work that the container tests have accepted, and how it ends."""

from __future__ import annotations

from typing import Any

import httpx

from support.deployment.composed import Composed, until


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
        assert answer.status_code in (200, 503), answer.text
        found = answer.json()
        return found if found["status"] in ("delivered", "failed", "completed", "cancelled") else None

    return until(look, timeout_s=150)


def subjects(stack: Composed) -> list[str]:
    return [message["Subject"] for message in stack.mailbox("/api/v1/messages?limit=500")["messages"]]
