"""The operations that batches and tasks may name, as announced by batch-processor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from chassis import logging, plain
from chassis.errors import Forbidden, InvalidInput
from chassis.postgres import Connection
from contracts.scopes import Scope
from gateway.batches import payload_checks, repository
from gateway.batches.inputs import FollowUpInput
from gateway.batches.payload_checks import PayloadCheck
from gateway.errors import UnknownOperation
from gateway.http.principal import Principal
from gateway.http.problems import invalid

log = logging.get(__name__)

# Returns payloads, each with its JSON pointer in the document that contained it.
Payloads: TypeAlias = Callable[[], Iterable[tuple[str, Any]]]
Lend: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]


@dataclass
class _Announced:
    """The operations as they were read last, and the checks of their payloads."""

    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[str, PayloadCheck | None] = field(default_factory=dict)


class OperationCatalogue:
    """The last announcement, read from the database, so that it is available without batch-processor."""

    def __init__(self, lend: Lend, known: _Announced | None = None) -> None:
        self._lend = lend
        self._known = known or _Announced()

    def on(self, connection: Connection) -> OperationCatalogue:
        """Return the catalogue for a caller that holds a connection and must not wait for a second one."""
        return OperationCatalogue(lambda: nullcontext(connection), self._known)

    async def all(self) -> list[dict[str, Any]]:
        """Return all operations: name, description, JSON Schema of an item, required scopes."""
        await self._refresh()
        return list(self._known.operations.values())

    async def permit(
        self,
        principal: Principal,
        name: str,
        payloads: Payloads = tuple,
        *,
        following: FollowUpInput | None = None,
    ) -> None:
        """Raise an error unless `principal` may run `name` on the payloads, and the follow-up on its own."""
        principal.require(Scope.BATCHES_WRITE)
        await self.require(name, principal)
        if following is not None:
            await self.require(following.operation, principal, pointer="/on_finished/operation")
        await self._require_fit(name, payloads)
        if following is not None:
            own = [("/on_finished/payload", following.payload)]
            await self._require_fit(following.operation, lambda: own)

    async def require(self, name: str, principal: Principal, *, pointer: str = "/operation") -> None:
        """Raise `UnknownOperation` for a name that was not announced, `Forbidden` without its scopes.

        Before the first announcement every name passes; batch-processor checks it again.
        """
        if name not in self._known.operations:
            await self._refresh()
        operation = self._known.operations.get(name)
        if operation is None:
            if not self._known.operations:
                return
            known = ", ".join(sorted(self._known.operations))
            detail = f"There is no operation {name!r}; the operations are {known}."
            raise UnknownOperation(detail, errors=invalid(pointer, detail).errors)
        # Compared as strings: no key has a scope that this gateway does not know yet.
        missing = [scope for scope in operation["required_scopes"] if scope not in principal.scopes]
        if missing:
            needed = " ".join(missing)
            challenge = f'Bearer realm="tickwire", error="insufficient_scope", scope="{needed}"'
            raise Forbidden(
                f"The operation {name!r} needs the scope {needed}; the key does not have it.",
                headers={"www-authenticate": challenge},
            )

    async def check_of(self, name: str) -> PayloadCheck | None:
        """Return the check of payloads against an operation's newest schema; None if all are valid."""
        await self._refresh()
        return self._known.checks.get(name)

    async def _require_fit(self, name: str, payloads: Payloads) -> None:
        """Raise `InvalidInput` if payloads do not match the schema of the operation `name`."""
        check = self._known.checks.get(name)
        if check is None or not await payload_checks.find_all(check, payloads()):
            return
        # Another release of the operation may have been announced since the catalogue was read.
        check = await self.check_of(name)
        errors = await payload_checks.find_all(check, payloads()) if check is not None else []
        if errors:
            detail = f"{errors[0].pointer} does not fit the operation {name!r}: {errors[0].detail}."
            more = f" {len(errors)} are listed in errors." if len(errors) > 1 else ""
            raise InvalidInput(
                f"{detail}{more} GET /v1/operations shows the schema of an item.", errors=errors
            )

    async def _refresh(self) -> None:
        async with self._lend() as connection:
            rows = await repository.list_operations(connection)
        self._known.checks = {row["name"]: self._compiled(row) for row in rows}
        self._known.operations = {row["name"]: row for row in rows}

    def _compiled(self, row: dict[str, Any]) -> PayloadCheck | None:
        known, schema = self._known.checks.get(row["name"]), row["item_schema"]
        if not schema or (known is not None and known.schema == schema):
            return known if schema else None
        try:
            return PayloadCheck(schema)
        except ValueError as error:
            # The operation itself still validates its items.
            log.warning(
                "item schema of an operation cannot be compiled",
                operation=row["name"],
                reason=plain.text(error),
            )
            return None
