"""The lines of the guides of mail, pasted as they are by somebody with a key of his own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from native.stack import Stack
from support import pasted
from support.deployed import Deployed

SCOPES = (
    *("emails:send", "emails:read", "templates:read", "templates:write", "domains:write"),
    *("batches:read", "batches:write"),
)
PARTS = {
    "docs/guides/email.md": (
        *("The first mail", "List and change many mails", "Your own domain", "Suppressions"),
        "How long a mail is kept",
    ),
    "docs/guides/templates.md": ("Mail merge",),
}
SAID = {
    "docs/guides/email.md": ('"message_id":', '"purpose":"ownership"', '"added":1', '"content_days":1'),
    "docs/guides/templates.md": ("Order 17 is on its way", "<p>Dear Ann,</p>"),
}


@pytest.fixture(scope="module")
async def key(api: httpx.AsyncClient) -> str:
    user = (
        await api.post("/v1/users", json={"name": "Reader of guides", "email": "guides@example.com"})
    ).json()
    wanted = {"name": "guides", "scopes": SCOPES, "user_id": user["id"]}
    return str((await api.post("/v1/api-keys", json=wanted)).json()["key"])


@pytest.mark.parametrize("page", PARTS)
async def test_the_lines_of_a_guide_run_as_they_are_pasted(
    stack: Stack | Deployed, key: str, tmp_path: Path, page: str
) -> None:
    if isinstance(stack, Deployed):
        pytest.skip("a stack that runs elsewhere may not let anybody send from the domains of the guides")
    (tmp_path / "report.pdf").write_bytes(b"%PDF")
    lines = [*pasted.blocks(page), *(one for part in PARTS[page] for one in pasted.blocks(page, below=part))]
    # In a thread, as the stack asks a DNS server of this process.
    answers = await asyncio.to_thread(
        pasted.run, "\n".join(lines), tmp_path, key=key, addresses={"http://127.0.0.1:8080": stack.url}
    )
    assert [words for words in SAID[page] if words not in answers] == []
