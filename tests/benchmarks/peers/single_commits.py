"""The peer of acceptance: the same gateway, where each accepted request has a commit of its own.

They commit side by side, each over a connection of the pool, so that PostgreSQL flushes several at once.
"""

from __future__ import annotations

from unittest import mock

from gateway.__main__ import main
from gateway.acceptance import acceptor
from gateway.acceptance.commits import Accept
from gateway.acceptance.repository import Work


class SingleCommits:
    """Hands each piece of work to `accept` by itself, while others are on their way."""

    def __init__(self, accept: Accept) -> None:
        self._accept = accept

    async def add(self, work: Work) -> bool:
        """Commit `work`; return whether it was new."""
        return work.acceptance.id in await self._accept([work])


if __name__ == "__main__":
    with mock.patch.object(acceptor, "GroupCommit", SingleCommits):
        main()
