"""A sender domain from its DNS records to a signed mail in the mailbox."""

from __future__ import annotations

import dkim
import httpx
import pytest

from contracts.domains import Domain
from native.stack import Stack
from support.deployed import Deployed
from support.doubles.dns import DnsServer
from support.waiting import until

MAIL = {
    "from": "Acme <orders@signed.example>",
    "to": "signed@example.org",
    "subject": "Your order",
    "text": "It is on its way.",
    "headers": {
        "List-Unsubscribe": "<https://signed.example/u/1>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    },
}


async def test_a_mail_of_a_verified_domain_arrives_signed(
    api: httpx.AsyncClient, mailbox: httpx.AsyncClient, stack: Stack | Deployed, names: DnsServer
) -> None:
    if isinstance(stack, Deployed):
        pytest.skip("a stack that runs somewhere asks DNS servers of its own")
    made = Domain.model_validate((await api.post("/v1/domains", json={"name": "signed.example"})).json())
    names.follow(made.records)
    assert (await api.post(f"/v1/domains/{made.id}/verify")).json()["status"] == "verified"
    assert (await api.post("/v1/emails", json=MAIL)).status_code == 202

    async def found() -> list[dict[str, str]]:
        answer = await mailbox.get("/api/v1/search", params={"query": f"to:{MAIL['to']}"})
        return list(answer.json()["messages"])

    await until(found)
    (arrived,) = await found()
    raw = (await mailbox.get(f"/api/v1/message/{arrived['ID']}/raw")).content
    # The mailbox puts a line of its own in front.
    message = dkim.DKIM(raw[raw.index(b"DKIM-Signature:") :])
    assert all(message.verify(idx=number, dnsfunc=names.text) for number in range(2))
