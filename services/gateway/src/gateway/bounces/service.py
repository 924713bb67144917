"""Bounces at the gateway: accepted from a mail server, parsed and recorded by email."""

from __future__ import annotations

import base64

from chassis.broker.rpc import RpcClient
from contracts.emails import BounceRecorded, RecordBounce
from gateway.bounces.inputs import MOST_BYTES, BounceQuery, RecordedBounce
from gateway.http.calls import Call, RawBody


class BounceService:
    """Forwards bounces to email. The mail server keeps each bounce and retries until it is recorded."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc

    async def record(self, call: Call, query: BounceQuery, body: RawBody) -> RecordedBounce:
        """Record a mail that bounced to a return path."""
        content = base64.b64encode(body.content[:MOST_BYTES]).decode()
        request = RecordBounce(recipient=query.recipient, content=content)
        found = await self._rpc.call(request, BounceRecorded, call.deadline)
        return RecordedBounce(kind=found.kind, is_new=found.is_new)
