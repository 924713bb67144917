"""The operations that batches and tasks may name, as batch-processor has announced them."""

from __future__ import annotations

from typing import Any

from chassis.errors import Forbidden
from chassis.postgres import Postgres
from contracts.scopes import Scope
from gateway.batches.inputs import FollowUpInput
from gateway.batches.repository import OperationRepository
from gateway.errors import UnknownOperation
from gateway.http.principal import Principal
from gateway.http.problems import invalid


class OperationCatalogue:
    """The last announcement, read from the database, so that it holds while batch-processor is away."""

    def __init__(self, postgres: Postgres, repository: OperationRepository) -> None:
        self._postgres = postgres
        self._repository = repository
        self._operations: dict[str, dict[str, Any]] = {}

    async def all(self) -> list[dict[str, Any]]:
        """Return all operations: name, description, JSON Schema of an item, required scopes."""
        await self._refresh()
        return list(self._operations.values())

    async def permit(
        self, principal: Principal, name: str, *, following: FollowUpInput | None = None
    ) -> None:
        """Raise what keeps `principal` from running the operation `name`, and the one that follows."""
        principal.require(Scope.BATCHES_WRITE)
        await self.require(name, principal)
        if following is not None:
            await self.require(following.operation, principal, pointer="/on_finished/operation")

    async def require(self, name: str, principal: Principal, *, pointer: str = "/operation") -> None:
        """Raise `UnknownOperation` for a name that was not announced, `Forbidden` without its scopes.

        Before the first announcement every name passes: batch-processor itself has the last word.
        """
        if name not in self._operations:
            await self._refresh()
        operation = self._operations.get(name)
        if operation is None:
            if not self._operations:
                return
            known = ", ".join(sorted(self._operations))
            detail = f"There is no operation {name!r}; there are {known}."
            raise UnknownOperation(detail, errors=invalid(pointer, detail).errors)
        # They are compared as texts: a scope that this gateway does not know yet is one that nobody has.
        missing = [scope for scope in operation["required_scopes"] if scope not in principal.scopes]
        if missing:
            needed = " ".join(missing)
            challenge = f'Bearer realm="tickwire", error="insufficient_scope", scope="{needed}"'
            raise Forbidden(
                f"The operation {name!r} needs the scope {needed}; the key does not have it.",
                headers={"www-authenticate": challenge},
            )

    async def _refresh(self) -> None:
        async with self._postgres.connection() as connection:
            rows = await self._repository.list(connection)
        self._operations = {row["name"]: row for row in rows}
