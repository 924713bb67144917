"""A service in a separate process: it stores the batches that it is asked to cancel, and streams for ever."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from chassis import asgi, logging
from chassis.broker.handlers import InTransaction
from chassis.ops import ops_routes
from chassis.runtime import ServiceRuntime
from chassis.settings import Settings, load
from contracts.batches import INTAKE, CancelBatch
from contracts.topology import BATCH_PROCESSOR
from support.effects import store


async def stream() -> AsyncIterator[bytes]:
    while True:
        yield b"still here\n"
        await asyncio.sleep(0.1)


def create_app(runtime: ServiceRuntime) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with runtime:
            yield

    app = FastAPI(lifespan=lifespan, routes=[*ops_routes(runtime.health)])
    app.add_api_route("/stream", lambda: StreamingResponse(stream()))
    return app


def main() -> None:
    settings = load(Settings)
    logging.configure(service=BATCH_PROCESSOR, level="INFO", style="json")
    runtime = ServiceRuntime(settings, service=BATCH_PROCESSOR, package="support.sample_service")
    runtime.consume(INTAKE, {CancelBatch: InTransaction(store)})
    listener = asgi.Listener(create_app(runtime), "127.0.0.1", int(os.environ["PORT"]))
    asgi.serve([listener], health=runtime.health, delay_s=0, grace_s=settings.shutdown_grace_s)


if __name__ == "__main__":
    main()
