"""The rights of batches in a life cycle: owners lose some, and get them back, while work is on its way."""

from __future__ import annotations

from uuid import UUID

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from contracts.batches import CreateBatch, LimitOwner
from support.batch_callers import RIGHTS
from support.batch_operators import BatchOperators
from support.waiting_messages import waiting_messages


class BatchRights(BatchOperators):
    """What becomes of rights. `following` has those that each task may have that follows an end."""

    def __init__(self) -> None:
        super().__init__()
        self.following: dict[UUID, set[str]] = {}

    @rule(owner=st.sampled_from(("ann", "bob")), left=st.sets(st.sampled_from(RIGHTS)), is_slow=st.booleans())
    def lose_rights(self, owner: str, left: set[str], is_slow: bool) -> None:
        """Let an owner lose rights; what has arrived is limited at once, or with the next loss."""
        limit = LimitOwner(owner_id=owner, scopes=sorted(left), limited_at=self.tick())
        self.wait(self.engine.handle(limit))
        if not is_slow:
            self.wait(self.engine.deliver(LimitOwner))
        for model in self.models:
            if model.owner == owner:
                model.rights &= left
        for id_ in self.following.keys() & self.follow_ups_of(owner):
            self.following[id_] &= left

    @invariant()
    def each_end_is_followed_by_a_task(self) -> None:
        for creation in self.wait(self.follow_ups()):
            of = self.model_of(UUID(creation.metadata["finished_id"]))
            self.following.setdefault(creation.batch_id, set(of.rights))
        assert len(self.following) == sum(model.followings for model in self.models)

    def follow_ups_of(self, owner: str) -> set[UUID]:
        return {made.batch_id for made in self.wait(self.follow_ups()) if made.owner_id == owner}

    async def follow_ups(self) -> list[CreateBatch]:
        """Return the commands that are on their way to make tasks."""
        async with self.engine.postgres.connection() as connection:
            messages = await waiting_messages(connection)
        bodies = [m.body for m in messages if m.message_type == CreateBatch.message_type]
        return [CreateBatch.model_validate(orjson.loads(body)) for body in bodies]

    def assert_what_follows_has_the_rights_of_now(self) -> None:
        """Make all tasks that follow; each has the rights of its batch that its owner has not lost."""
        self.wait(self.engine.deliver(LimitOwner))
        for creation in self.wait(self.follow_ups()):
            self.wait(self.engine.handle(creation))
        made = self.wait(
            self.engine.fetch("SELECT id, scopes FROM batches WHERE id = ANY($1)", list(self.following))
        )
        assert {row["id"]: set(row["scopes"]) for row in made} == self.following
