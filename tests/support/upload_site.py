"""The email service's endpoint for uploads, beside a gateway: the real one, on a database of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import httpx
import uvicorn

from chassis.health import Health
from chassis.http import create_service_app
from chassis.postgres import Postgres
from contracts.uploads import OpenParcel, OpenUpload
from emailer.uploads import routes
from emailer.uploads.service import UploadLimits, UploadReceiver
from support.gateway_stack import House
from support.waiting import until


@dataclass(frozen=True)
class UploadSite:
    """The address that uploads go to, and the database that keeps them."""

    url: str
    postgres: Postgres

    @property
    def port(self) -> int:
        """The port of the way in, for a gate."""
        return int(self.url.rpartition(":")[2])

    async def count(self, table: str = "uploads") -> int:
        """Return the number of rows of a table."""
        async with self.postgres.connection() as connection:
            return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))

    async def content_of(self, upload_id: UUID) -> bytes:
        """Return the bytes that are there of an upload."""
        async with self.postgres.connection() as connection:
            parts = await connection.fetch(
                "SELECT content FROM upload_parts WHERE upload_id = $1 ORDER BY position", upload_id
            )
        return b"".join(part["content"] for part in parts)

    async def is_idle(self, *, but: int = 0) -> bool:
        """Return whether exactly `but` uploads are in progress."""
        async with self.postgres.connection() as connection:
            coming = await connection.fetchval("SELECT count(*) FROM uploads WHERE completed_at IS NULL")
        return bool(coming == but)


@asynccontextmanager
async def running(house: House) -> AsyncIterator[UploadSite]:
    """Answer `OpenUpload`, and take what is sent then."""
    postgres = Postgres(await house.database("emailer"))
    await postgres.open()
    service = UploadReceiver(postgres, UploadLimits())
    await house.double("email", {OpenUpload: service.open, OpenParcel: service.open_parcel})
    app = create_service_app(Health(), title="email", lifespan=_nothing)
    routes.add_routes(app, service)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    )
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield UploadSite(f"http://127.0.0.1:{port}", postgres)
    finally:
        server.should_exit = True
        # Cancelled, it would leave tasks that the garbage collector ends in the middle of another test.
        await serving
        await postgres.close()


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


async def uploaded(api: httpx.AsyncClient, content: bytes, **headers: str) -> httpx.Response:
    """Return the answer to an upload of `content`."""
    sent = {"content-type": "application/octet-stream", **headers}
    return await api.post("/v1/uploads", content=content, headers=sent)
