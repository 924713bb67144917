"""The list and the counts of an owner's mails: those of email, those that wait here or are on their way."""

from __future__ import annotations

from collections import Counter

from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.paging import page_of
from chassis.postgres import Postgres
from contracts.emails import CountEmails, EmailCounts, EmailFilter, ListEmails
from gateway.emails import repository
from gateway.emails.inputs import EmailLineView, EmailList, EmailsQuery, StoredEmails


class EmailListing:
    """Merges two lists by id. A mail that moves from one to the other meanwhile is listed once."""

    def __init__(self, postgres: Postgres, rpc: RpcClient) -> None:
        self._postgres = postgres
        self._rpc = rpc

    async def page(self, query: EmailsQuery, *, owner_id: str, deadline: Deadline) -> EmailList:
        """Return a page of the mails of `owner_id`, newest first.

        It can be shorter than the limit before the last one. Raise `Unavailable` while email cannot be
        reached, unless only mails that wait here are wanted.
        """
        wanted = query.wanted()
        # First, as mails leave from here to email: one that leaves now is in both.
        async with self._postgres.connection() as connection:
            found, following = await repository.list_mails(
                connection,
                owner_id,
                wanted,
                waiting=query.waiting,
                before=query.cursor,
                limit=query.limit,
            )
        own = [EmailLineView(**row) for row in found]
        # Behind these ids one of the lists has more, which the next page shows.
        ends = [following] if following else []
        lines = {line.id: line for line in own}
        if not query.waiting:
            question = ListEmails(owner_id=owner_id, wanted=wanted, before=query.cursor, limit=query.limit)
            page = await self._rpc.call(question, StoredEmails, deadline)
            ends += [page.next_cursor] if page.next_cursor else []
            lines |= {line.id: line for line in page.data}
            stored = {line.id for line in page.data}
            left = [line.id for line in own if line.status == "queued" and not line.waiting]
            # They are on their way, or email has them by now, in a state that the filter may exclude.
            if wanted.status and (unsure := [key for key in left if key not in stored]):
                question = ListEmails(owner_id=owner_id, wanted=EmailFilter(ids=unsure), limit=len(unsure))
                page = await self._rpc.call(question, StoredEmails, deadline)
                lines |= {line.id: line for line in page.data}
                lines = {key: line for key, line in lines.items() if line.status in wanted.status}
        end = max(ends, default=None)
        ordered = [lines[key] for key in sorted(lines, reverse=True) if end is None or key >= end]
        shown, following = page_of(ordered, query.limit, lambda line: line.id)
        cursor = following or end
        return EmailList(data=shown, next_cursor=str(cursor) if cursor else None)

    async def counts(self, *, owner_id: str, deadline: Deadline) -> EmailCounts:
        """Return how many mails `owner_id` has by status, with those that wait here.

        Raise `Unavailable` while email cannot be reached.
        """
        stored = await self._rpc.call(CountEmails(owner_id=owner_id), EmailCounts, deadline)
        # Last, as mails leave from here to email: one that leaves meanwhile is not counted twice.
        async with self._postgres.connection() as connection:
            here, exact = await repository.count_mails(connection, owner_id)
        return EmailCounts(counts=Counter(stored.counts) + Counter(here), exact=exact)
