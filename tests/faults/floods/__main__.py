"""`python -m faults.floods <name> <address as JSON>`: one flood, in a process of its own.

It is niced: a guest comes from another machine, and takes no time away from the product's processors.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable

from faults.floods import reading, requests, sockets, stored, webhooks, work
from faults.floods.address import Address

FLOODS: dict[str, Callable[[Address], Awaitable[str]]] = {
    one.__name__: one
    for one in (
        *(requests.heads, requests.connections, requests.crowd, requests.bodies, requests.keys),
        *(requests.documents, requests.uploads, sockets.frames, sockets.commands),
        *(sockets.slow_readers, sockets.chatter, sockets.crowded_room),
        *(work.html, work.attachments, work.refusals, work.silence, work.items, work.provider),
        *(work.copies_of_files, work.copies_of_html, webhooks.receivers),
        *(reading.heavy_questions, reading.slow_downloads, reading.event_streams, stored.mails),
    )
}


async def _run(name: str, options: str) -> str:
    return await FLOODS[name](Address(**json.loads(options)))


if __name__ == "__main__":
    os.nice(10)
    print(asyncio.run(_run(*sys.argv[1:])))
