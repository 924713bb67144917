"""Preparations with which well-formed requests are accepted: things in the right state, and examples."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import schemathesis

from support.waiting import until

_API = httpx.Client(
    base_url=os.environ["TICKWIRE_URL"],
    headers={"Authorization": os.environ["TICKWIRE_AUTHORIZATION"]},
    timeout=20,
)
# What the test has made before: a parked message, a signed return path, a user, and what has ended.
_SEEDS = json.loads(os.environ["TICKWIRE_SEEDS"])
_LATER = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
_SOURCE = {"subject": "Welcome, {{ name }}", "html": "<p>Hello <b>{{ name }}</b></p>"}
# Of its items one starts at once, and the next in an hour.
_SLOW = {"operation": "echo", "items": [1, 2, 3], "options": {"rate_limit": {"items": 1, "per_s": 3600}}}


def complete(case: schemathesis.Case[Any]) -> None:
    """Make `case`, which is well-formed, one that is also accepted."""
    operation = case.operation.label
    examples = (
        case.operation.definition.raw.get("requestBody", {})
        .get("content", {})
        .get("application/json", {})
        .get("examples")
    )
    if examples and case.media_type == "application/json":
        case.body = {**next(iter(examples.values()))["value"], **_fresh(operation)}
    if operation in _PATHS:
        case.path_parameters |= _PATHS[operation]()
    if operation in _QUERIES:
        # As a whole: of a query that was changed, the values are checked as the texts that are sent.
        case.query = _QUERIES[operation]()


def _fresh(operation: str) -> dict[str, Any]:
    """Return the members of the body of `operation` that can be used once."""
    name = uuid.uuid4().hex
    match operation:
        case "POST /v1/users":
            return {"email": f"{name}@example.com"}
        case "POST /v1/domains":
            return {"name": f"{name}.example.com"}
        case "POST /v1/templates":
            return {"name": name}
        case "POST /v1/console/sessions":
            return {"token": _post("/v1/console/logins", {})["path"].partition("#")[2]}
    return {}


def _post(path: str, body: Any = None, **sent: Any) -> Any:
    answer = _API.post(path, json=body, **sent)
    assert answer.is_success, answer.text
    return answer.json()


def _made(parameter: str, path: str, body: Any) -> Callable[[], dict[str, Any]]:
    """Return a function that creates a thing with `body` at `path`, and returns its id as `parameter`."""
    return lambda: {parameter: _post(path, body)["id"]}


def _batch_with_items() -> dict[str, Any]:
    batch_id = _OPEN()["batch_id"]
    headers = {"content-type": "application/x-ndjson"}
    answer = _API.put(f"/v1/batches/{batch_id}/items?offset=0", content=b'{"payload":1}\n', headers=headers)
    assert answer.is_success, answer.text
    return {"batch_id": batch_id}


def _after(thing: Callable[[], dict[str, Any]], path: str, *actions: str) -> Callable[[], dict[str, Any]]:
    """Return a function that creates `thing`, and has `actions` done with it at `path`, in this order."""

    def create() -> dict[str, Any]:
        ids = thing()
        for action in actions:
            # Not before batch-processor has it.
            asyncio.run(until(lambda action=action: _API.post(f"{path}/{action}".format(**ids)).is_success))
        return ids

    return create


def _template() -> dict[str, Any]:
    name = uuid.uuid4().hex
    _post("/v1/templates", {"name": name, **_SOURCE})
    return {"name": name}


def _schedule() -> dict[str, Any]:
    # A user may have 100 of them, so the newest makes room for this one.
    for newest in _API.get("/v1/schedules", params={"limit": 1}).json()["data"]:
        _API.delete(f"/v1/schedules/{newest['id']}", headers={"if-match": "*"})
    made = {"name": "for ever", "cron": "0 0 1 1 *", "template": {"operation": "echo"}}
    return {"schedule_id": _post("/v1/schedules", made)["id"]}


def _suppression() -> dict[str, Any]:
    answer = _post("/v1/suppressions", {"address": f"{uuid.uuid4().hex}@example.com"})
    return {"suppression_id": answer["id"]}


_OPEN = _made("batch_id", "/v1/batches?open=true", {"operation": "echo"})
_RUNNING = _made("batch_id", "/v1/batches", _SLOW)
_TASK = _made("task_id", "/v1/tasks", {"operation": "echo", "payload": 1, "run_at": _LATER})
_STORED_TASK = _after(_TASK, "/v1/tasks/{task_id}", "pause", "resume")
_MAIL = _made(
    "email_id",
    "/v1/emails",
    {"to": ["waits@example.com"], "subject": "later", "text": "later", "send_at": _LATER},
)


def _stored_mail() -> dict[str, Any]:
    ids = _MAIL()

    def is_changed() -> bool:
        # Until email has it, a mail cannot be changed.
        change, url = {"send_at": _LATER}, f"/v1/emails/{ids['email_id']}"
        return _API.patch(url, json=change, headers={"if-match": "*"}).is_success

    asyncio.run(until(is_changed))
    return ids


def _webhook() -> dict[str, Any]:
    # A user may have 20 of them, so the newest makes room for this one.
    for newest in _API.get("/v1/webhooks", params={"limit": 1}).json()["data"]:
        _API.delete(f"/v1/webhooks/{newest['id']}")
    # Nobody answers there: its name cannot be looked up.
    made = {"url": "https://receiver.invalid/", "events": ["email.failed"]}
    return {"webhook_id": _post("/v1/webhooks", made)["id"]}


def _delivery() -> dict[str, Any]:
    ids = _webhook()
    return {**ids, "delivery_id": _post(f"/v1/webhooks/{ids['webhook_id']}/test")["id"]}


def _ended_delivery() -> dict[str, Any]:
    ids = _delivery()
    for status in ("disabled", "active"):
        # What waits is withdrawn.
        _API.patch(f"/v1/webhooks/{ids['webhook_id']}", json={"status": status})
    return ids


_KEY = _made("key_id", "/v1/api-keys", {"name": "to be changed", "scopes": ["quotes:read"]})
_ALERT = _made("alert_id", "/v1/alerts", {"symbol": "AAPL", "condition": {"above": 600}})

_PATHS: dict[str, Callable[[], dict[str, Any]]] = {
    "GET /v1/alerts/{alert_id}": _ALERT,
    "DELETE /v1/alerts/{alert_id}": _ALERT,
    "POST /v1/api-keys/{key_id}/rotate": _KEY,
    "DELETE /v1/api-keys/{key_id}": _KEY,
    "GET /v1/batches/{batch_id}/upload": _OPEN,
    "PUT /v1/batches/{batch_id}/items": _OPEN,
    "POST /v1/batches/{batch_id}/seal": _batch_with_items,
    "POST /v1/batches/{batch_id}/pause": _after(_RUNNING, "/v1/batches/{batch_id}", "pause", "resume"),
    "POST /v1/batches/{batch_id}/resume": _after(_RUNNING, "/v1/batches/{batch_id}", "pause"),
    "POST /v1/batches/{batch_id}/retry": lambda: {"batch_id": _SEEDS["batch_id"]},
    "PATCH /v1/tasks/{task_id}": _STORED_TASK,
    "POST /v1/tasks/{task_id}/cancel": _TASK,
    "POST /v1/tasks/{task_id}/pause": _STORED_TASK,
    "POST /v1/tasks/{task_id}/resume": _after(_TASK, "/v1/tasks/{task_id}", "pause"),
    "POST /v1/tasks/{task_id}/retry": lambda: {"task_id": _SEEDS["task_id"]},
    "PATCH /v1/emails/{email_id}": _stored_mail,
    "DELETE /v1/emails/{email_id}": _stored_mail,
    "POST /v1/emails/{email_id}/resend": _stored_mail,
    **{f"{method} /v1/schedules/{{schedule_id}}": _schedule for method in ("GET", "PATCH", "DELETE")},
    **{f"GET /v1/schedules/{{schedule_id}}/{part}": _schedule for part in ("runs", "next-runs")},
    **{f"POST /v1/schedules/{{schedule_id}}/{part}": _schedule for part in ("pause", "resume", "run")},
    "GET /v1/suppressions/{suppression_id}": _suppression,
    "DELETE /v1/suppressions/{suppression_id}": _suppression,
    **{f"{method} /v1/webhooks/{{webhook_id}}": _webhook for method in ("GET", "PATCH", "DELETE")},
    **{f"GET /v1/webhooks/{{webhook_id}}/{part}": _webhook for part in ("secret", "deliveries")},
    **{
        f"POST /v1/webhooks/{{webhook_id}}/{part}": _webhook
        for part in ("rotate", "test", "deliveries/replay")
    },
    "GET /v1/webhooks/{webhook_id}/deliveries/{delivery_id}": _delivery,
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay": _ended_delivery,
    "PUT /v1/templates/{name}": _template,
    "POST /v1/templates/{name}/preview": _template,
    "GET /v1/admin/parked/{service}/{number}": lambda: {"service": "email", "number": _SEEDS["parked"]},
    "PUT /v1/admin/emails/retention/{user_id}": lambda: {"user_id": _SEEDS["user_id"]},
}
_QUERIES: dict[str, Callable[[], dict[str, Any]]] = {
    # A JSON body contains what the query has for other bodies.
    "POST /v1/batches": dict,
    "PUT /v1/batches/{batch_id}/items": lambda: {"offset": 0},
    "POST /v1/inbound/bounces": lambda: {"recipient": _SEEDS["return_path"]},
    **{
        # A bulk action must choose something, which no schema of parameters can say.
        f"POST /v1/{things}/{action}": lambda: {"created_before": _LATER}
        for things, actions in {
            "batches": ("cancel", "pause", "resume", "retry"),
            "tasks": ("cancel", "pause", "resume", "retry"),
            "emails": ("cancel", "retry"),
            "suppressions": ("lift",),
        }.items()
        for action in actions
    },
    "POST /v1/webhooks/{webhook_id}/deliveries/replay": lambda: {"created_before": _LATER},
    **{
        f"POST /v1/admin/parked/{action}": lambda: {"service": "email", "queue": "email.send"}
        for action in ("replay", "discard")
    },
}
