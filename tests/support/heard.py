"""A running product with planted secrets, and everything that it has written, exposed or answered."""

from __future__ import annotations

import base64
from asyncio.subprocess import Process
from dataclasses import dataclass, field
from typing import Any

import httpx

from faults.rig import Rig
from native.services import NAMES
from support.doubles.alpaca import AlpacaDouble
from support.doubles.collector import Collector
from support.doubles.prometheus import Double
from support.planted import Planted
from support.waiting import until

LETTER = "PLANTEDLETTERdearDiaryIamSoSad"
IDEMPOTENCY_KEY = "PLANTED-idempotency-key-5150"
SMTP_PASSWORD = "PLANTED/smtp+pa=ss#word"
PROMETHEUS_PASSWORD = "PLANTED-prometheus-4711"
WRONG_PASSWORD = "PLANTED-wrong-password-0815"


@dataclass
class HeardProduct:
    """A running product with doubles all around it, what was planted in it, and what it was heard to say."""

    rig: Rig
    collector: Collector
    provider: AlpacaDouble
    monitoring: Double
    planted: Planted
    user_key: str = ""
    answers: list[str] = field(default_factory=list)
    exposed: list[str] = field(default_factory=list)
    parked: list[dict[str, Any]] = field(default_factory=list)
    exits: dict[str, str] = field(default_factory=dict)

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        """Return a client whose answers are kept."""

        async def keep(response: httpx.Response) -> None:
            await response.aread()
            self.answers.append(f"{response.status_code} {response.headers.raw!r} {response.text}")

        headers = {"Authorization": f"Bearer {key or self.user_key}"}
        return httpx.AsyncClient(
            base_url=self.rig.stack.url, headers=headers, timeout=20, event_hooks={"response": [keep]}
        )

    async def look(self) -> None:
        """Keep what every service shows of itself now."""
        async with httpx.AsyncClient(timeout=10) as client:
            for service in NAMES:
                for page in ("/readyz", "/livez", "/metrics"):
                    shown = await client.get(f"{self.rig.stack.ops_url(service)}{page}")
                    self.exposed.append(f"{service}{page} {shown.text}")

    async def logged(self, service: str, *events: str) -> None:
        """Wait until a service has logged all of this: else what follows would prove nothing."""
        log = self.rig.stack.log
        await until(lambda: all(e in log(service) for e in events), timeout_s=40, what=lambda: str(events))


def mail(to: str = "ann@example.com", **more: Any) -> dict[str, Any]:
    content = base64.b64encode(LETTER.encode()).decode()
    attachment = {"filename": "diary.txt", "content_type": "text/plain", "content": content}
    return {
        "to": [to],
        "subject": "hello",
        "text": LETTER,
        "html": f"<p>{LETTER}</p>",
        "attachments": [attachment],
        **more,
    }


async def listen(process: Process, said: list[str], *, until_said: tuple[str, ...]) -> None:
    """Add each line of a process to `said`, and end the process when all of `until_said` is in them."""
    assert process.stdout is not None
    awaited = set(until_said)
    while line := await process.stdout.readline():
        said.append(line.decode())
        found = {words for words in awaited if words in said[-1]}
        if found and found == awaited:
            process.terminate()
        awaited -= found
    await process.wait()
