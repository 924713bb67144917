"""Thousands of requests generated from the document, valid and invalid ones, alone and in sequences."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from native.stack import Stack
from support import broken_messages
from support.waiting import until

HERE = Path(__file__).parent
# The number of requests is bounded, and how long they take says what else the machine does. A run in which no
# answer has come for so long hangs.
SILENT_S = 90
FEWEST_REACHED = 0.95
# What they need cannot be made through the API: a message that no service can read, and a signed return path.
ONLY_FROM_INSIDE = ("getParked", "recordBounce")


@pytest.mark.usefixtures("resumed")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "is_whole",
    [
        pytest.param(False, id="each_way_to_break_a_rule"),
        pytest.param(True, id="every_value_that_breaks_a_rule", marks=pytest.mark.long),
    ],
)
async def test_the_gateway_does_what_its_document_says_and_nothing_else(
    stack: Stack, api: httpx.AsyncClient, tmp_path: Path, is_whole: bool
) -> None:
    statuses, me = tmp_path / "statuses", (await api.get("/v1/me")).json()
    await make_what_the_examples_name(api)
    seeds = await make_what_has_ended(api)
    if isinstance(stack, Stack):
        seeds |= await make_from_inside(stack, api)
    without: tuple[str, ...] = () if isinstance(stack, Stack) else ONLY_FROM_INSIDE
    run = await asyncio.create_subprocess_exec(
        *command(stack),
        *(f"--exclude-operation-id={name}" for name in without),
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(HERE.parent),
            "TICKWIRE_URL": stack.url,
            "TICKWIRE_AUTHORIZATION": f"Bearer {stack.api_key}",
            "TICKWIRE_SEEDS": json.dumps(seeds),
            "TICKWIRE_STATUSES": str(statuses),
            "TICKWIRE_WHOLE": str(int(is_whole)),
            "TICKWIRE_OWN_IDS": json.dumps({"key_id": me["key"]["id"], "user_id": str(me["user"]["id"])}),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    ending = asyncio.create_task(run.communicate())
    try:
        answered = -1
        while not (await asyncio.wait({ending}, timeout=SILENT_S))[0]:
            before, answered = answered, statuses.stat().st_size if statuses.exists() else 0
            assert answered > before, f"no answer for {SILENT_S} s, after {answered} bytes of statuses"
        output, _ = ending.result()
    finally:
        if run.returncode is None:
            run.kill()
            await run.wait()
    # The key is in none of what is shown: Schemathesis replaces it.
    assert run.returncode == 0, output.decode()[-20_000:]
    document = (await api.get("/openapi.json")).json()
    names = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    # The document itself was read, though it is left out of what is tried.
    missed = sorted(names - succeeded(statuses) - {"GET /openapi.json"})
    assert len(missed) <= (1 - FEWEST_REACHED) * len(names), missed


async def make_what_the_examples_name(api: httpx.AsyncClient) -> None:
    """Create the private room of the examples, with a member beside its manager."""
    await api.post("/v1/users", json={"name": "Bob", "email": "bob-of-the-board@example.com"})
    await api.post("/v1/rooms", json={"name": "board", "private": True})
    answer = await api.post("/v1/rooms/board/members", json={"user_id": 2, "role": "writer"})
    assert answer.status_code == 200, answer.text


async def make_what_has_ended(api: httpx.AsyncClient) -> dict[str, Any]:
    """Return a user and the ids of a batch and a task that have ended, by the parameters that name them."""
    made: dict[str, Any] = {"user_id": 2}
    bodies = {
        "batch": {"operation": "echo", "items": [1, 2]},
        "task": {"operation": "echo", "payload": 1},
    }
    for kind, body in bodies.items():
        path = "/v1/batches" if kind == "batch" else "/v1/tasks"
        made[f"{kind}_id"] = (await api.post(path, json=body)).json()["id"]

        async def has_ended(path: str = f"{path}/{made[f'{kind}_id']}") -> bool:
            return bool((await api.get(path)).json()["status"] == "completed")

        await until(has_ended)
    return made


async def make_from_inside(stack: Stack, api: httpx.AsyncClient) -> dict[str, Any]:
    """Return the number of a message that the email service has parked, and the return path of a mail."""
    parked = await broken_messages.park(stack.rabbitmq.url, api)
    mail = {"to": ["bounces@example.com"], "subject": "bounces", "text": "bounces"}
    assert (await api.post("/v1/emails", json=mail)).is_success

    async def return_path() -> Any:
        async with httpx.AsyncClient(base_url=stack.mailbox.url) as mailbox:
            found = (await mailbox.get("/api/v1/search", params={"query": "to:bounces@example.com"})).json()
            if not found["messages"]:
                return None
            newest = found["messages"][0]["ID"]
            return (await mailbox.get(f"/api/v1/message/{newest}")).json()["ReturnPath"]

    return {"parked": parked["id"], "return_path": await until(return_path)}


def command(stack: Stack) -> list[str]:
    return [
        str(Path(sys.executable).parent / "schemathesis"),
        f"--config-file={HERE / 'schemathesis.toml'}",
        "--no-color",
        "run",
        f"{stack.url}/openapi.json",
        f"--header=Authorization: Bearer {stack.api_key}",
        "--checks=all",
        "--phases=examples,coverage,fuzzing,stateful",
    ]


def succeeded(statuses: Path) -> set[str]:
    """Return the operations that were answered with a 2xx at least once."""
    lines = (line.rpartition(" ") for line in statuses.read_text().splitlines())
    return {name for name, _, status in lines if 200 <= int(status) < 300}
