"""The HTTP side: the web page and the used part of Mailpit's REST API."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from native.mailbox.messages import Json, Received, Store, matching
from native.mailbox.receiver import Receiver
from native.mailbox.scripts import Scripts

_PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
_MOST_LISTED = 1000
_MOST_DIGITS = 18
MOST_BODY_BYTES = 1024 * 1024


def create_app(store: Store, receiver: Receiver, *, smtp_host: str, smtp_port: int) -> Starlette:
    """Return the application; its lifespan owns the SMTP listener."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        listener = await asyncio.get_running_loop().create_server(receiver.protocol, smtp_host, smtp_port)
        async with listener:
            yield

    return Starlette(routes=_routes(store, receiver.scripts), lifespan=lifespan)


def _routes(store: Store, scripts: Scripts) -> list[Route]:
    api = Api(store)

    async def show_scripts(_request: Request) -> Response:
        return JSONResponse({"scripts": scripts.documents()})

    async def replace_scripts(request: Request) -> Response:
        document = await _document(request)
        try:
            scripts.replace(document["scripts"])
        except (ValueError, KeyError, TypeError) as error:
            raise HTTPException(400, f'expected {{"scripts": […]}}: {error}') from None
        return JSONResponse({"scripts": scripts.documents()})

    get: list[tuple[str, Callable[[Request], Response]]] = [
        ("/", page),
        ("/livez", ok),
        ("/readyz", ok),
        ("/api/v1/info", api.info),
        ("/api/v1/message/{id}/raw", api.raw),
    ]
    routes = [Route(path, _asynchronous(answer)) for path, answer in get]
    return [
        Route("/api/v1/messages", api.delete, methods=["DELETE"]),
        Route("/api/v1/messages", api.messages),
        Route("/api/v1/search", api.delete_found, methods=["DELETE"]),
        Route("/api/v1/search", api.search),
        Route("/api/v1/scripts", show_scripts),
        Route("/api/v1/scripts", replace_scripts, methods=["PUT"]),
        Route("/api/v1/message/{id}", api.message),
        Route("/api/v1/message/{id}/headers", api.headers),
        Route("/api/v1/message/{id}/part/{part}", api.part),
        *routes,
    ]


class Api:
    """The endpoints of Mailpit's API, answered from the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def info(self, _request: Request) -> Response:
        """Answer with the mailbox's name and its number of messages."""
        return JSONResponse({"Version": "tickwire-mailbox", "Messages": len(self._store)})

    async def messages(self, request: Request) -> Response:
        """Answer with a page of the newest messages."""
        return await self._listing(request, list(self._store))

    async def search(self, request: Request) -> Response:
        """Answer with a page of the messages that match `query`."""
        return await self._listing(request, await self._found(request))

    async def message(self, request: Request) -> Response:
        """Answer with one message."""
        # In a thread: parsing a mail may take long, and does not touch the store.
        return JSONResponse(await asyncio.to_thread(self._wanted(request).detail))

    async def headers(self, request: Request) -> Response:
        """Answer with the headers of one message."""
        return JSONResponse(await asyncio.to_thread(self._wanted(request).headers))

    def raw(self, request: Request) -> Response:
        """Answer with one message as it was received."""
        return Response(self._wanted(request).raw, media_type="text/plain; charset=utf-8", headers=_INERT)

    async def part(self, request: Request) -> Response:
        """Answer with one attachment or inline part, with its original bytes."""
        number = _number(request.path_params["part"], -1)
        found = await asyncio.to_thread(self._wanted(request).file, number)
        if found is None:
            raise HTTPException(404, "part not found")
        headers = _INERT | {"Content-Disposition": "attachment"}
        return Response(found.content, media_type=found.content_type, headers=headers)

    async def delete(self, request: Request) -> Response:
        """Delete the messages named in the body; without a body, delete all."""
        document = await _document(request)
        if not isinstance(document, dict) or not isinstance(document.get("IDs"), list | None):
            raise HTTPException(400, 'expected {"IDs": […]}')
        identifiers = [str(identifier) for identifier in document.get("IDs") or []]
        self._store.remove(identifiers) if identifiers else self._store.clear()
        return PlainTextResponse("ok")

    async def delete_found(self, request: Request) -> Response:
        """Delete the messages that match `query`."""
        self._store.remove([message.id for message in await self._found(request)])
        return PlainTextResponse("ok")

    async def _found(self, request: Request) -> list[Received]:
        query = _query(request)
        try:
            # In a thread: messages that were loaded at the start are read when they are first needed.
            return await asyncio.to_thread(matching, list(self._store), query)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None

    def _wanted(self, request: Request) -> Received:
        message = self._store.get(request.path_params["id"])
        if message is None:
            raise HTTPException(404, "message not found")
        return message

    async def _listing(self, request: Request, found: list[Received]) -> Response:
        start = _number(request.query_params.get("start", ""), 0)
        limit = min(_number(request.query_params.get("limit", ""), 50), _MOST_LISTED)
        page = found[start : start + limit]
        shown = await asyncio.to_thread(lambda: [message.summary for message in page])
        answer: Json = {
            "total": len(self._store),
            "unread": len(self._store),
            "count": len(shown),
            "messages_count": len(found),
            "messages_unread": len(found),
            "start": start,
            "tags": [],
            "messages": shown,
        }
        return JSONResponse(answer)


def page(_request: Request) -> Response:
    """Answer with the web page."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _policy(_PAGE), **_INERT})


def ok(_request: Request) -> Response:
    """Answer a health check."""
    return PlainTextResponse("ok")


_INERT = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def _policy(html: str) -> str:
    # Mail is shown in a frame that inherits this policy: nothing is fetched, and only our own scripts run.
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def _asynchronous(answer: Callable[[Request], Response]) -> Callable[[Request], object]:
    # On the loop, not in a thread: the store belongs to it. What is read of messages needs none of it.
    async def endpoint(request: Request) -> Response:
        return answer(request)

    return endpoint


def _query(request: Request) -> str:
    query = request.query_params.get("query", "").strip()
    if not query:
        raise HTTPException(400, "query is missing")
    return query


def _number(text: str, default: int) -> int:
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else default


async def _document(request: Request) -> Any:
    """Return the body as JSON. Raise `HTTPException` if it is invalid, too long or nested too deeply."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY_BYTES:
            raise HTTPException(413, f"the body has more than {MOST_BODY_BYTES} bytes")
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from None
