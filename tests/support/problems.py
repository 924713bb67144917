"""Reading problem documents (RFC 9457) in tests."""

from __future__ import annotations

from typing import Any

import httpx


def assert_problem(
    answer: httpx.Response, status: int, code: str, pointer: str | None = None
) -> dict[str, Any]:
    """Return the problem document of `answer`, which must be this problem; `pointer` is one of its fields."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"/problems/{code}", document
    assert document["status"] == status
    assert document["instance"] == answer.headers["x-request-id"]
    assert document["detail"]
    if pointer is not None:
        assert pointer in [error["pointer"] for error in document["errors"]], document
    return document
