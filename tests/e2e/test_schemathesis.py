"""Thousands of requests generated from the document, valid and invalid ones, alone and in sequences."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from native.stack import Stack
from support.waiting import until

HERE = Path(__file__).parent
# The number of requests is bounded; this ends a run that hangs. A busy machine needs 210 s for them.
MOST_S = 400
FEWEST_REACHED = 0.95


@pytest.mark.usefixtures("resumed")
@pytest.mark.timeout(MOST_S + 60)
async def test_the_gateway_does_what_its_document_says_and_nothing_else(
    stack: Stack, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    report, me = tmp_path / "report.ndjson", (await api.get("/v1/me")).json()
    await make_what_the_examples_name(api)
    waiting = await make_what_still_waits(api)
    run = await asyncio.create_subprocess_exec(
        *command(stack, report),
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(HERE.parent),
            "TICKWIRE_URL": stack.url,
            "TICKWIRE_AUTHORIZATION": f"Bearer {stack.api_key}",
            "TICKWIRE_WAITING_IDS": json.dumps(waiting),
            "TICKWIRE_OWN_IDS": json.dumps({"key_id": me["key"]["id"], "user_id": str(me["user"]["id"])}),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(run.communicate(), MOST_S)
    finally:
        if run.returncode is None:
            run.kill()
            await run.wait()
    # The key is in none of what is shown: Schemathesis replaces it.
    assert run.returncode == 0, output.decode()[-20_000:]
    document = (await api.get("/openapi.json")).json()
    names = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    # The document itself was read, though it is left out of what is tried.
    missed = sorted(names - succeeded(report) - {"GET /openapi.json"})
    assert len(missed) <= (1 - FEWEST_REACHED) * len(names), missed


async def make_what_the_examples_name(api: httpx.AsyncClient) -> None:
    """Create the private room of the examples, with a member beside its manager."""
    await api.post("/v1/users", json={"name": "Bob", "email": "bob-of-the-board@example.com"})
    await api.post("/v1/rooms", json={"name": "board", "private": True})
    answer = await api.post("/v1/rooms/board/members", json={"user_id": 2, "role": "writer"})
    assert answer.status_code == 200, answer.text


async def make_what_still_waits(api: httpx.AsyncClient) -> dict[str, str]:
    """Return, by operation, the id of a thing that can still be changed: most created things end."""
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    mail = {"to": ["waits@example.com"], "subject": "later", "text": "later", "send_at": later}
    task = {"operation": "echo", "payload": 1, "run_at": later}
    schedule = {"name": "for ever", "cron": "0 0 1 1 *", "template": {"operation": "echo"}}
    one_schedule = "/v1/schedules/{schedule_id}"
    wanted = {
        **{f"{method} {one_schedule}": ("/v1/schedules", schedule) for method in ("GET", "PATCH", "DELETE")},
        **{f"GET {one_schedule}/{part}": ("/v1/schedules", schedule) for part in ("runs", "next-runs")},
        **{f"POST {one_schedule}/{part}": ("/v1/schedules", schedule) for part in ("pause", "resume", "run")},
        "DELETE /v1/emails/{email_id}": ("/v1/emails", mail),
        "PATCH /v1/emails/{email_id}": ("/v1/emails", mail),
        "PATCH /v1/tasks/{task_id}": ("/v1/tasks", task),
        "POST /v1/tasks/{task_id}/pause": ("/v1/tasks", task),
        "POST /v1/tasks/{task_id}/resume": ("/v1/tasks", task),
        "POST /v1/tasks/{task_id}/cancel": ("/v1/tasks", task),
    }
    made = {}
    for operation, (path, body) in wanted.items():
        answer = await api.post(path, json=body)
        assert answer.is_success, answer.text
        made[operation] = answer.json()["id"]

    async def is_paused() -> bool:
        return (await api.post(f"/v1/tasks/{made['POST /v1/tasks/{task_id}/resume']}/pause")).is_success

    # Not before batch-processor has the task.
    await until(is_paused)
    return made


def command(stack: Stack, report: Path) -> list[str]:
    return [
        str(Path(sys.executable).parent / "schemathesis"),
        f"--config-file={HERE / 'schemathesis.toml'}",
        "--no-color",
        "run",
        f"{stack.url}/openapi.json",
        f"--header=Authorization: Bearer {stack.api_key}",
        "--checks=all",
        "--phases=examples,coverage,fuzzing,stateful",
        "--report=ndjson",
        f"--report-ndjson-path={report}",
    ]


def succeeded(report: Path) -> set[str]:
    """Return the operations that were answered with a 2xx at least once."""
    statuses: dict[str, set[int]] = defaultdict(set)
    for line in report.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for number, case in recorder.get("cases", {}).items():
            response = recorder["interactions"].get(number, {}).get("response")
            if response is not None:
                statuses[f"{case['value']['method']} {case['value']['path']}"].add(response["status_code"])
    return {name for name, found in statuses.items() if any(200 <= status < 300 for status in found)}
