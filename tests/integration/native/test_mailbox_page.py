"""The mailbox's page in a real browser: scripts are made and removed by hand."""

from __future__ import annotations

from pathlib import Path

import httpx

from native.mailbox import server as mailbox
from support import browser

_FILL = """
document.querySelector('[name=to]').value = '*@example.com';
document.querySelector('[name=action]').value = 'defer';
document.querySelector('[name=text]').value = '4.7.1 try again in 5 minutes';
document.querySelector('[name=times]').value = '3';
document.querySelector('form button').click();
"""


async def test_a_developer_makes_and_removes_a_script_on_the_page(tmp_path: Path) -> None:
    async with (
        mailbox.start(tmp_path / "box") as box,
        browser.open_page(tmp_path / "profile") as page,
        httpx.AsyncClient(base_url=box.url, trust_env=False) as client,
    ):
        await page.go(f"{box.url}/")
        await page.run("document.getElementById('scripting').click()")
        await page.until("!!document.querySelector('[name=to]')")
        await page.run(_FILL)
        await page.until("document.querySelector('dd')?.innerText.includes('try again')")
        (script,) = (await client.get("/api/v1/scripts")).json()["scripts"]
        assert (script["to"], script["action"], script["code"]) == ("*@example.com", "defer", 450)
        assert script["times"] == 3
        assert "defer · 450 · 4.7.1 try again in 5 minutes · at rcpt · 3 times" in await page.text("dl")
        await page.run("document.querySelector('dd button').click()")
        await page.until("!document.querySelector('dd')")
        assert (await client.get("/api/v1/scripts")).json()["scripts"] == []
        assert page.complaints == []
