"""The request of a delivery, as Standard Webhooks 1.0.0 describe it: three headers and a signed body."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

from chassis.egress.client import HttpRequest


def request(url: str, *, webhook_id: str, at: int, body: bytes, secrets: Sequence[bytes]) -> HttpRequest:
    """Return the request that delivers `body` in the second `at` of Unix time.

    It has a signature by each of `secrets`: while a secret is replaced, a receiver may know only one of them.
    """
    signed = f"{webhook_id}.{at}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(secret, signed, "sha256")).decode() for secret in secrets)
    headers = {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
    return HttpRequest("POST", url, headers, body)
