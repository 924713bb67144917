"""The peer of the quote path: a Quart route that does nothing but answer, read by httptools."""

from __future__ import annotations

import sys

import uvicorn
from quart import Quart, Response

BODY = (
    b'{"symbol":"AAPL","price":542.07,"bid":null,"ask":null,"open":534.5,"high":542.07,"low":534.5,'
    b'"previous_close":530.38,"change":11.69,"change_percent":2.2041,"volume":1714045,"currency":"USD",'
    b'"as_of":"2026-11-22T22:04:51.206300Z","delayed_by_s":0.0,"source":"replay","stale":false,'
    b'"simulated":true,"session":"regular","stream":{"epoch":"01a2054a-2602-76f8-b5a0-bb78425e256b","offset":17}}'
)

app = Quart("bare")


@app.get("/v1/stocks/<symbol>")
async def quote(symbol: str) -> Response:
    return Response(BODY, content_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http="httptools",
        access_log=False,
        log_level="warning",
    )
