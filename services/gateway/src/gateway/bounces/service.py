"""Bounces at the gateway: taken from a mail server, read and recorded in email."""

from __future__ import annotations

import base64

from chassis.broker.rpc import RpcClient
from contracts.emails import BounceRecorded, RecordBounce
from gateway.bounces.inputs import MOST_BYTES, BounceQuery, RecordedBounce
from gateway.http.calls import Call, RawBody


class BounceService:
    """Forwards bounces to email. The mail server keeps each until it is recorded, and retries."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc

    async def record(self, call: Call, query: BounceQuery, body: RawBody) -> RecordedBounce:
        """Record a mail that came back to a return path."""
        content = base64.b64encode(body.content[:MOST_BYTES]).decode()
        request = RecordBounce(recipient=query.recipient, content=content)
        found = await self._rpc.call(request, BounceRecorded, call.deadline)
        return RecordedBounce(kind=found.kind, is_new=found.is_new)
