"""uvicorn's server, ended by an event where uvicorn would poll ten times a second."""

from __future__ import annotations

import asyncio

import uvicorn


class StoppableServer(uvicorn.Server):
    """A server that sleeps until `should_exit` is set."""

    def __init__(self, config: uvicorn.Config) -> None:
        self._exiting = asyncio.Event()
        super().__init__(config)

    @property
    def should_exit(self) -> bool:
        """Whether the server must stop."""
        return self._exiting.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._exiting.set()
        else:
            self._exiting.clear()

    async def main_loop(self) -> None:
        """Wait until the server must stop."""
        # Prepares the headers that every response has.
        await self.on_tick(0)
        await self._exiting.wait()
