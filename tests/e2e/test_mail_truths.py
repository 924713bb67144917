"""The state that a mail reports through the whole stack: a suppressed one, and one that a batch has made."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx

from support.waiting import until


async def reaches(api: httpx.AsyncClient, email_id: str, status: str) -> httpx.Response:
    """Return the answer about a mail once its status is `status`."""

    async def found() -> httpx.Response | None:
        answer = await api.get(f"/v1/emails/{email_id}")
        return answer if answer.status_code == 200 and answer.json()["status"] == status else None

    answer: httpx.Response = await until(found, timeout_s=40, what=lambda: status)
    return answer


async def test_a_mail_to_a_suppressed_address_says_so_everywhere_until_it_is_lifted(
    api: httpx.AsyncClient,
) -> None:
    address, tag = f"gone+{uuid4().hex}@example.com", uuid4().hex
    held = (await api.post("/v1/suppressions", json={"address": address, "reason": "asked"})).json()
    wish = {"to": [address], "subject": "x", "text": "x", "tags": [tag]}
    email_id = (await api.post("/v1/emails", json=wish)).json()["id"]
    email = (await reaches(api, email_id, "suppressed")).json()
    assert [one["status"] for one in email["recipients"]] == ["suppressed"]
    assert email.get("next") is None
    wanted = {"status": "suppressed", "tag": tag}
    assert [one["id"] for one in (await api.get("/v1/emails", params=wanted)).json()["data"]] == [email_id]
    failed = await api.get("/v1/emails", params={"status": "failed", "tag": tag})
    assert failed.json()["data"] == []
    await api.delete(f"/v1/suppressions/{held['id']}")
    again = await api.post("/v1/emails/retry", params=wanted)
    assert again.json()["changed"] == 1
    await reaches(api, email_id, "delivered")


async def test_metadata_come_back_byte_for_byte_also_of_a_mail_that_a_batch_has_made(
    api: httpx.AsyncClient,
) -> None:
    metadata = '{"price": 1.10,  "note": "\\u00e9"}'
    item = f'{{"to": ["metadata@example.com"], "subject": "x", "text": "x", "metadata": {metadata}}}'
    headers = {"Content-Type": "application/json"}
    body = f'{{"operation": "email.send", "items": [{item}]}}'
    accepted = await api.post("/v1/batches", content=body, headers=headers)
    assert accepted.status_code == 202, accepted.text

    async def finished() -> Any:
        batch = (await api.get(f"/v1/batches/{accepted.json()['id']}")).json()
        return batch if batch["status"] == "completed" else None

    await until(finished, timeout_s=40)
    results = (await api.get(f"/v1/batches/{accepted.json()['id']}/results")).json()["data"]
    answer = await reaches(api, results[0]["result"]["email_id"], "delivered")
    assert metadata in answer.text
