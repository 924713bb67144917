"""Bulk actions on mails: those that wait here, and those that email has."""

from __future__ import annotations

from chassis.broker.rpc import RpcClient
from contracts.emails import CancelEmails, EmailsChanged, RetryEmails
from gateway.emails.inputs import EmailsBulk
from gateway.emails.waiting_mails import WaitingMails
from gateway.http.calls import Call
from gateway.http.filters import SteppedResult


class BulkChanges:
    """Cancels and retries the mails that match a filter, a bounded number of them by each call."""

    def __init__(self, rpc: RpcClient, waiting_mails: WaitingMails) -> None:
        self._rpc = rpc
        self._waiting_mails = waiting_mails

    async def cancel(self, call: Call, query: EmailsBulk) -> SteppedResult:
        """Cancel the caller's mails that match, except recipients already handed to the relay."""
        owner_id, wanted, dry_run = call.principal.owner_id, query.wanted(), query.dry_run
        waiting = stored = EmailsChanged(matched=0, changed=0, complete=True)
        at_waiting, before = query.position
        # First, as mails leave from here to email.
        if query.waiting is not False and at_waiting:
            waiting = await self._waiting_mails.cancel_matching(
                wanted, owner_id=owner_id, before=before, dry_run=dry_run
            )
            before = None
        cursor = f"waiting:{waiting.next_cursor}" if waiting.next_cursor else None
        if not query.waiting and not cursor:
            question = CancelEmails(owner_id=owner_id, wanted=wanted, dry_run=dry_run, before=before)
            stored = await self._rpc.call(question, EmailsChanged, call.deadline)
            cursor = str(stored.next_cursor) if stored.next_cursor else None
        return SteppedResult(
            matched=waiting.matched + stored.matched,
            changed=waiting.changed + stored.changed,
            complete=waiting.complete and stored.complete,
            next_cursor=cursor,
            exact=stored.exact,
            dry_run=dry_run,
        )

    async def retry(self, call: Call, query: EmailsBulk) -> SteppedResult:
        """Retry at once the caller's mails that match."""
        if query.waiting:
            # None of them has been tried yet.
            return SteppedResult(matched=0, changed=0, complete=True, dry_run=query.dry_run)
        question = RetryEmails(
            owner_id=call.principal.owner_id,
            wanted=query.wanted(),
            dry_run=query.dry_run,
            before=query.position[1],
        )
        found = await self._rpc.call(question, EmailsChanged, call.deadline)
        cursor = str(found.next_cursor) if found.next_cursor else None
        return SteppedResult(
            **found.model_dump(exclude={"next_cursor"}), next_cursor=cursor, dry_run=query.dry_run
        )
