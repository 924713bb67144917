"""Runs a service's HTTP listeners on uvicorn, in one loop, and shuts them down in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import uvicorn

from chassis import allocator, logging
from chassis.health import Health
from chassis.http1.admission import Admission
from chassis.http1.connection import HttpConnection
from chassis.http1.limits import INTERNAL, ConnectionLimits
from chassis.loop_turns import LoopTurns
from chassis.stoppable import StoppableServer

log = logging.get(__name__)

_LARGEST_FRAME = 64 * 1024
_FOR_REQUESTS = 0.75
_FILES = 65_536


@dataclass(frozen=True)
class Application:
    """A wired service, not opened yet: `asgi` opens and closes it in its lifespan, `health` reports on it.

    Owners take `turns` at its event loop.
    """

    asgi: Any
    health: Health
    turns: LoopTurns = field(default_factory=LoopTurns)


@dataclass(frozen=True)
class Listener:
    """An ASGI application and where it listens. The first listener's lifespan opens and closes the service.

    `websockets` is the protocol class that serves them, where the application has any. Requests are read in
    `turns`.
    """

    app: Any
    host: str
    port: int
    websockets: type[asyncio.Protocol] | None = None
    limits: ConnectionLimits = INTERNAL
    turns: LoopTurns = field(default_factory=LoopTurns)


class _Server(StoppableServer):
    """uvicorn without its own signal handlers: `serve` decides when each listener closes."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(listeners: Sequence[Listener], *, health: Health, delay_s: float, grace_s: float) -> None:
    """Serve until SIGTERM or SIGINT; return when everything is closed.

    Raise `SystemExit` when a liveness check of the process fails: not every supervisor polls `/livez`, but
    every one restarts a process that has exited.
    """
    import uvloop

    allocator.limit_arenas()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failures = runner.run(_serve(listeners, health=health, delay_s=delay_s, grace_s=grace_s))
    if failures:
        raise SystemExit("exiting to be restarted: " + "; ".join(failures.values()))


async def _serve(
    listeners: Sequence[Listener], *, health: Health, delay_s: float, grace_s: float
) -> Mapping[str, str]:
    # Objects made at the start live as long as the process: examining them again whenever a few requests have
    # made some hundred new ones would cost a quarter of each request.
    gc.collect()
    gc.freeze()
    # A collection of the middle generation examines six times the first: with twenty, it took 150 ms while an
    # owner opened its streams, and several times that on a busy machine. Full ones are as rare as before.
    gc.set_threshold(20_000, 5, 80)
    _raise_file_limit()
    servers = [
        create_server(listener, lifespan=index == 0, grace_s=grace_s)
        for index, listener in enumerate(listeners)
    ]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = [asyncio.create_task(server.serve()) for server in servers]
    stopping = asyncio.create_task(stop.wait())
    failing = asyncio.create_task(health.failed())
    await asyncio.wait([*running, stopping, failing], return_when=asyncio.FIRST_COMPLETED)
    # Load balancers follow readiness: let them stop sending requests before the listeners close.
    health.draining = True
    failures = failing.result() if failing.done() else {}
    log.info("stopping", **({"failures": failures} if failures else {}))
    await asyncio.sleep(delay_s)
    deadline = health.stop(grace_s)
    # The public listener first, with the service behind it; the ops listener reports on it until the end.
    for server, task in zip(servers, running, strict=True):
        # A stream that stays open to the end must leave the service time to settle its work.
        server.config.timeout_graceful_shutdown = max(1, int(deadline.remaining_s() * _FOR_REQUESTS))
        server.should_exit = True
        await task
    stopping.cancel()
    failing.cancel()
    return failures


def _raise_file_limit() -> None:
    # The usual limit is 1,024 files, for programs that still use select(). A connection beyond it would be
    # neither accepted nor refused.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def create_server(listener: Listener, *, lifespan: bool, grace_s: float) -> uvicorn.Server:
    """Return a server for one listener, which leaves the signals of the process alone."""
    protocol = partial(HttpConnection, admission=Admission(listener.limits, listener.turns))
    return _Server(
        uvicorn.Config(
            listener.app,
            host=listener.host,
            port=listener.port,
            lifespan="on" if lifespan else "off",
            log_config=None,
            access_log=False,
            server_header=False,
            # The connections write the date themselves.
            date_header=False,
            proxy_headers=False,
            # uvicorn calls it as it would call the class.
            http=cast(type[asyncio.Protocol], protocol),
            timeout_graceful_shutdown=int(grace_s) or 1,
            ws=listener.websockets or "none",
            ws_max_size=_LARGEST_FRAME,
            # A small compressed frame can unpack into hundreds of megabytes before any limit is checked.
            ws_per_message_deflate=False,
        )
    )
