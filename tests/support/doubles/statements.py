"""A connection without a server: each named statement is answered by the method of that name."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from chassis import queries


class AnsweredConnection:
    """Passes the arguments of each statement of `package` to the method of `answers` with its name.

    The method returns what the repository expects: rows, one row or None, or a value.
    """

    def __init__(self, answers: object, *, package: str = "gateway") -> None:
        self._answers = answers
        self._names = {statement: name for name, statement in queries.of(package).items()}

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        return await getattr(self._answers, self._names[statement])(*arguments)

    fetchrow = fetchval = execute = fetch

    def transaction(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()
