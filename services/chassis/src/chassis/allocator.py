"""The memory allocator of the C library: how a process gives back to the system what it no longer uses."""

from __future__ import annotations

import asyncio
import ctypes
from typing import Any

# The parameter of glibc's mallopt(3). By default there are eight arenas for each core, and free memory of one
# is not used by another: the event loop has one to itself, and all other threads share the second.
_ARENA_MAX = -8
_ARENAS = 2
_EVERY_S = 60


def limit_arenas(library: Any = None) -> None:
    """Let all threads that are started from now on share the memory that others have freed.

    Does nothing where the C library, by default that of the process, is not glibc.
    """
    if mallopt := _function(library, "mallopt"):
        mallopt(_ARENA_MAX, _ARENAS)


def give_back(library: Any = None) -> None:
    """Give the free pages of all arenas back to the system; does nothing where there is no glibc.

    Without this, freed memory stays with the process while anything above it is in use.
    """
    if trim := _function(library, "malloc_trim"):
        trim(ctypes.c_size_t(0))


async def give_back_forever() -> None:
    """Give free pages back once a minute, until cancelled.

    Not whenever they become free: to get a page again takes a microsecond or two, and a server that reads one
    large body after the other would pay that for each page of each body.
    """
    while True:
        # In a thread: after much work there are thousands of pages.
        await asyncio.to_thread(give_back)
        await asyncio.sleep(_EVERY_S)


def _function(library: Any, name: str) -> Any:
    """Return a function of the C library, or None; glibc alone has those of this module."""
    return getattr(library or ctypes.CDLL(None), name, None)
