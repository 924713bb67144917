"""Mail, from its acceptance to the mailbox."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time

from rich.table import Table

from native.demo.tour import Json, Tour, answer, until
from native.errors import DemoError

_REPORT = """\
Content-Type: multipart/report; report-type=delivery-status; boundary="R"

--R
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example

Final-Recipient: rfc822; {address}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such user

--R--
"""


async def mail(tour: Tour) -> None:
    """A mail is accepted at once and delivered from the queue; its timeline shows each step."""
    address = f"you+{tour.run}@example.org"
    body = {
        "from": "tour@example.org",
        "to": [address],
        "subject": f"Your tour {tour.run}",
        "text": "This mail went through the gateway, RabbitMQ, the e-mail service and SMTP.",
        "html": "<h1>Hello</h1><p>From the gateway over RabbitMQ to the e-mail service and SMTP.</p>",
    }
    began = time.monotonic()
    accepted = await tour.post("/v1/emails", body)
    tour.say(f"accepted as {accepted['id']} after {(time.monotonic() - began) * 1000:.0f} ms")
    await arrived(tour, address, began, identifier=accepted["id"])

    async def recorded() -> Json | None:
        found = await tour.get(f"/v1/emails/{accepted['id']}")
        return found if found["status"] == "delivered" else None

    timeline = (await until(recorded))["timeline"]
    tour.say("its timeline: " + " → ".join(event["detail"] or event["kind"] for event in timeline))


async def upload(tour: Tour) -> None:
    """A file that is too large for a request is uploaded, and a mail attaches it by its id."""
    address = f"file+{tour.run}@example.org"
    octets = {"Content-Type": "application/octet-stream"}
    made = answer(await tour.api.post("/v1/uploads", content=secrets.token_bytes(3 << 20), headers=octets))
    tour.say(f"{made['size_bytes']:,} bytes as {made['id']}, SHA-256 {made['sha256'][:16]}…")
    file = {"filename": "figures.bin", "upload_id": made["id"]}
    body = {"to": [address], "subject": f"Figures {tour.run}", "text": "Attached.", "attachments": [file]}
    began = time.monotonic()
    accepted = await tour.post("/v1/emails", body)
    message = await arrived(tour, address, began, identifier=accepted["id"])
    await compare_attachment(tour, message, made["sha256"])


async def attachment(tour: Tour) -> None:
    """A mail carries a small file in base64; what arrives is compared with what was sent."""
    address, content = f"note+{tour.run}@example.org", secrets.token_bytes(20_000)
    file = {"filename": "note.bin", "content": base64.b64encode(content).decode()}
    body = {"to": [address], "subject": f"A note {tour.run}", "text": "Attached.", "attachments": [file]}
    began = time.monotonic()
    accepted = await tour.post("/v1/emails", body)
    message = await arrived(tour, address, began, identifier=accepted["id"])
    await compare_attachment(tour, message, hashlib.sha256(content).hexdigest())


async def domain(tour: Tour) -> None:
    """A domain to send from: the DNS records that prove its ownership, and the result of a check."""
    made = await tour.post("/v1/domains", {"name": f"tour-{tour.run}.example"})
    looked = await tour.post(f"/v1/domains/{made['id']}/verify")
    table = Table("purpose", "record", "value", "found", box=None, padding=(0, 2, 0, 3))
    for record in looked["records"]:
        place, value = f"{record['type']} {record['name']}", record["value"]
        shown = value if len(value) < 50 else f"{value[:48]}…"
        table.add_row(record["purpose"], place, shown, record["state"])
    tour.console.print(table)
    if looked["status"] != "pending":
        raise DemoError(f"the domain is {looked['status']}, although nobody has published its records")
    tour.say(
        "not verified: nobody has published its records. Mails from a verified domain are signed with DKIM"
    )
    removed = await tour.api.delete(f"/v1/domains/{made['id']}", headers={"If-Match": "*"})
    if removed.status_code != 204:
        raise DemoError(f"the domain was not removed: HTTP {removed.status_code}")


async def suppression(tour: Tour) -> None:
    """No mail is sent to a suppressed address, and the mail says why, until the suppression is lifted."""
    address = f"gone+{tour.run}@example.org"
    made = await tour.post("/v1/suppressions", {"address": address, "reason": "asked on the phone"})
    wish = {"to": [address], "subject": f"A word, {tour.run}", "text": "Nobody shall read this yet."}
    accepted = await tour.post("/v1/emails", wish)

    async def refused() -> Json | None:
        found = await tour.get(f"/v1/emails/{accepted['id']}")
        return found if found["status"] == "suppressed" else None

    refusal = await until(refused)
    tour.say(f"{refusal['status']}: {refusal['recipients'][0]['attempts'][0]['smtp_reply']}")
    await tour.api.delete(f"/v1/suppressions/{made['id']}")
    began = time.monotonic()
    await tour.post("/v1/emails", wish)
    await arrived(tour, address, began)


async def template(tour: Tour) -> None:
    """A template is stored and previewed, and a mail is rendered from it."""
    name, address = f"tour-{tour.run}", f"template+{tour.run}@example.org"
    source = {
        "subject": "{{ name }}, your watch list",
        "mjml": "<mjml><mj-body>{% for row in rows %}<mj-section><mj-column><mj-text>{{ row }}</mj-text>"
        "</mj-column></mj-section>{% endfor %}</mj-body></mjml>",
    }
    await tour.post("/v1/templates", {"name": name, **source})
    data = {"name": "Ann", "rows": ["AAPL", "MSFT <3"]}
    shown = await tour.post(f"/v1/templates/{name}/preview", {"data": data})
    tour.say(f"preview: “{shown['subject']}”, {len(shown['html']):,} characters of HTML")
    began = time.monotonic()
    accepted = await tour.post("/v1/emails", {"to": [address], "template": {"name": name, "data": data}})
    await arrived(tour, address, began, identifier=accepted["id"])
    made_of = (await tour.get(f"/v1/emails/{accepted['id']}"))["template"]
    tour.say(f"rendered from version {made_of['version']} of {made_of['name']}")


async def bounce(tour: Tour) -> None:
    """A mail bounces hours later: its return path identifies the recipient, who is then suppressed."""
    address = f"bounced+{tour.run}@example.org"
    began = time.monotonic()
    accepted = await tour.post("/v1/emails", {"to": [address], "subject": f"A try {tour.run}", "text": "?"})
    await arrived(tour, address, began, identifier=accepted["id"])
    found = (await tour.mailbox.get("/api/v1/search", params={"query": f"to:{address}"})).json()
    message = (await tour.mailbox.get(f"/api/v1/message/{found['messages'][0]['ID']}")).json()
    path = message["ReturnPath"].strip("<>")
    if not path.startswith("b+"):
        tour.say("off here: set EMAIL_BOUNCE_DOMAIN to send mails with a return path of their own")
        return
    report = _REPORT.format(address=address).encode()
    headers = {"Content-Type": "message/rfc822"}
    said = answer(
        await tour.api.post(
            "/v1/inbound/bounces", params={"recipient": path}, content=report, headers=headers
        )
    )
    state = await tour.get(f"/v1/emails/{accepted['id']}")
    tour.say(f"{said['kind']}: the mail is {state['status']} ({state['timeline'][-1]['detail']})")
    (held,) = (await tour.get("/v1/suppressions", address=address))["data"]
    tour.say(f"{held['address']} is suppressed until {held['expires_at'][:10]}, by a {held['origin']}")


async def limit(tour: Tour) -> None:
    """Three mails to a domain whose rate is one in three seconds: those beyond it wait for their turn."""
    began, accepted = time.monotonic(), {}
    for number in range(3):
        address = f"reader-{number}+{tour.run}@slow.tickwire.example"
        body = {"to": [address], "subject": f"Slowly {tour.run}", "text": "One after the other."}
        accepted[address] = (await tour.post("/v1/emails", body))["id"]

    async def stored() -> Json | None:
        found = await tour.get(f"/v1/emails/{last}")
        return found if found.get("timeline") else None

    *_, last = accepted.values()
    following = (await until(stored))["next"] or {"what": "nothing"}
    if "rate" not in following["what"]:
        tour.say("off here: set EMAIL_DOMAIN_LIMITS=slow.tickwire.example=1/3 to limit the domain's rate")
        return
    tour.say(f"next step of the last one: {following['what']}")
    for address, identifier in accepted.items():
        await arrived(tour, address, began, identifier=identifier)


async def compare_attachment(tour: Tour, message: Json, sha256: str) -> None:
    """Raise unless the only attachment of a message in the mailbox has the checksum `sha256`."""
    path = f"/api/v1/message/{message['ID']}"
    (file,) = (await tour.mailbox.get(path)).json()["Attachments"]
    content = (await tour.mailbox.get(f"{path}/part/{file['PartID']}")).content
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DemoError(f"{file['FileName']} has arrived with other bytes than it was sent with")
    tour.say(f"{file['FileName']} has arrived byte for byte: {len(content):,} bytes, SHA-256 {sha256[:16]}…")


async def arrived(tour: Tour, address: str, began: float, *, identifier: str = "") -> Json:
    """Wait for a mail for `address`, print how long it took and return it; raise if it failed."""

    async def look() -> Json | None:
        state: Json = await tour.get(f"/v1/emails/{identifier}") if identifier else {"status": ""}
        if state["status"] in ("failed", "suppressed"):
            attempts = [attempt for recipient in state["recipients"] for attempt in recipient["attempts"]]
            raise DemoError(f"the mail failed: {attempts[-1]['smtp_reply'] if attempts else 'no attempt'}")
        found = (await tour.mailbox.get("/api/v1/search", params={"query": f"to:{address}"})).json()
        return dict(found["messages"][0]) if found["messages"] else None

    message = await until(look)
    tour.say(
        f"arrived after {(time.monotonic() - began) * 1000:.0f} ms: “{message['Subject']}” for {address}"
    )
    return message
