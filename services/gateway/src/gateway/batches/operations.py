"""The operations that batches and tasks may name, as batch-processor has announced them."""

from __future__ import annotations

from typing import Any

from chassis import logging
from gateway.acceptance.repository import AcceptanceRepository
from gateway.errors import UnknownOperation
from gateway.http.endpoint import invalid

log = logging.get(__name__)


class Catalogue:
    """The last announcement, read from the database, so that it holds while batch-processor is away."""

    def __init__(self, repository: AcceptanceRepository) -> None:
        self._repository = repository
        self._operations: dict[str, dict[str, Any]] = {}

    async def refresh(self) -> None:
        """Read the catalogue again."""
        self._operations = {row["name"]: row for row in await self._repository.list_operations()}

    async def all(self) -> list[dict[str, Any]]:
        """All operations: name, description and the JSON Schema of an item."""
        await self.refresh()
        return list(self._operations.values())

    async def require(self, name: str) -> None:
        """Raise `UnknownOperation` for a name that was not announced.

        Before the first announcement every name passes: batch-processor itself has the last word.
        """
        if name not in self._operations:
            await self.refresh()
        if self._operations and name not in self._operations:
            known = ", ".join(sorted(self._operations))
            detail = f"There is no operation {name!r}; there are {known}."
            raise UnknownOperation(detail, errors=invalid("/operation", detail).errors)
