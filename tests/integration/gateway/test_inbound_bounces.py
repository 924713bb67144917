"""Bounces that a mail server submits over HTTP with a key of its own, also by the program for Postfix."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from chassis.deadlines import Deadline
from chassis.errors import NotFound
from contracts.emails import BounceRecorded, RecordBounce
from contracts.topology import EMAIL
from gateway.bounces.inputs import MOST_BYTES
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

PROGRAM = Path(__file__).parents[3] / "deploy/postfix/tickwire-bounce"
MAIL = {"content-type": "message/rfc822"}
TO = "b+x@bounces.example.com"


class Recorder:
    """Email's answers: it keeps what it is asked to record, and knows one return path."""

    def __init__(self) -> None:
        self.requests: list[RecordBounce] = []

    async def record(self, request: RecordBounce, _: Deadline) -> BounceRecorded:
        if request.recipient != TO:
            raise NotFound("no such return path")
        self.requests.append(request)
        return BounceRecorded(kind="hard", is_new=True)


@pytest.fixture
async def recorder(house: House) -> Recorder:
    found = Recorder()
    await house.double(EMAIL, {RecordBounce: found.record})
    return found


async def test_a_bounce_is_handed_in_with_a_scope_of_its_own(
    shared_listener: RunningGateway, recorder: Recorder
) -> None:
    to = {"recipient": TO}
    content = b"Subject: \xff\r\n\r\n" + b"x" * MOST_BYTES
    async with shared_listener.client(await shared_listener.new_key("bounces:write", user_id=1)) as server:
        answer = await server.post("/v1/inbound/bounces", params=to, content=content, headers=MAIL)
        assert (answer.status_code, answer.json()) == (200, {"kind": "hard", "is_new": True})
        other = await server.post(
            "/v1/inbound/bounces", params={"recipient": "a@b.example"}, content=b"", headers=MAIL
        )
        assert_problem(other, 404, "not-found")
        assert_problem(await server.get("/v1/emails"), 403, "forbidden")
        plain = {"content-type": "text/plain"}
        assert_problem(
            await server.post("/v1/inbound/bounces", params=to, content=b"", headers=plain),
            *(415, "unsupported-media-type"),
        )
        large = await server.post(
            "/v1/inbound/bounces", params=to, content=b"x" * (1 << 20) + b"x", headers=MAIL
        )
        assert_problem(large, 413, "payload-too-large")
    assert [base64.b64decode(one.content) for one in recorder.requests] == [content[:MOST_BYTES]]
    wanted = {"name": "no server", "scopes": ["bounces:write"], "user_id": await shared_listener.new_user()}
    assert_problem(await shared_listener.api.post("/v1/api-keys", json=wanted), 422, "invalid-input")


async def test_the_program_for_postfix_exits_with_the_status_that_postfix_acts_on(
    shared_listener: RunningGateway, recorder: Recorder, tmp_path: Path
) -> None:
    (tmp_path / "header").write_text(f"Authorization: Bearer {shared_listener.admin_key}\n")
    url = str(shared_listener.api.base_url).rstrip("/")

    async def run(recipient: str, *, to: str = url) -> int | None:
        (tmp_path / "conf").write_text(f"TICKWIRE_URL={to}\nKEY_HEADER_FILE={tmp_path}/header\n")
        process = await asyncio.create_subprocess_exec(
            *("sh", str(PROGRAM), recipient),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "TICKWIRE_BOUNCE_CONF": str(tmp_path / "conf")},
        )
        await process.communicate(b"Subject: it came back\r\n\r\n")
        return process.returncode

    assert await run(TO) == 0
    assert [base64.b64decode(one.content) for one in recorder.requests] == [b"Subject: it came back\r\n\r\n"]
    # Of no use to anybody, and not here at the moment: Postfix tries again.
    assert (await run("somebody@example.com"), await run(TO, to="http://127.0.0.1:1")) == (0, 75)
    (tmp_path / "header").write_text("Authorization: Bearer tw_live_no\n")
    assert await run(TO) == 75
