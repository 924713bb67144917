"""Attachments that wait for email are sent once each, whatever process ends meanwhile; owners take turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from chassis.broker import envelope
from chassis.broker.envelope import Outgoing, new_id
from chassis.broker.publisher import Publisher
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput, Overloaded, PayloadTooLarge, ServiceError, TooManyAtOnce
from chassis.outbox import OutboxRelay
from chassis.parked import park_unpublishable
from chassis.postgres import Connection, Postgres
from contracts.emails import SendEmail, SendPackedEmail
from contracts.mail import MOST_UPLOAD_BYTES
from contracts.uploads import OpenedUpload, OpenParcel, StoredUpload
from emailer.uploads.service import UploadLimits, UploadReceiver
from gateway.emails import repository
from gateway.emails.parcels import Parcel, Parcels
from gateway.emails.repository import LEAST_COUNTED_BYTES
from gateway.emails.waiting_mails import WaitingMails
from gateway.emails.waiting_parcels import ParcelLimits, WaitingParcels
from gateway.uploads.transfer import Transfer
from support.background import in_background
from support.gateway_stack import House
from support.upload_site import UploadSite
from support.waiting import until
from support.waiting_messages import waiting_messages

# Two parts of an upload.
LARGE, SMALL = bytes(range(256)) * 1_500, b"Hello\n"
STEPS = 8


class Killed(BaseException):
    """Ends a gateway as a kill would: nothing catches it."""


@dataclass
class Fate:
    """Ends a gateway at the step `at`; 0 lets it live."""

    at: int = 0
    done: int = 0
    owners: list[str] = field(default_factory=list)
    refused_owner: str = ""
    refusal: ServiceError = field(default_factory=lambda: Overloaded("Too many attachments wait."))

    def step(self) -> None:
        self.done += 1
        if self.done == self.at:
            raise Killed


class Asking:
    """Asks the email service's own answers."""

    def __init__(self, site: UploadSite, fate: Fate) -> None:
        self._email, self._fate = UploadReceiver(site.postgres, UploadLimits()), fate

    async def call(self, question: OpenParcel, _: type[OpenedUpload], deadline: Deadline) -> OpenedUpload:
        self._fate.step()
        self._fate.owners.append(question.owner_id)
        if question.owner_id == self._fate.refused_owner:
            raise self._fate.refusal
        opened = await self._email.open_parcel(question, deadline)
        self._fate.step()
        return opened


class Carrier(Transfer):
    """Sends to the email service, in two pieces."""

    def __init__(self, url: str, fate: Fate) -> None:
        super().__init__(url, most=8)
        self._fate = fate

    async def put(self, upload_id: UUID, token: str, content: AsyncIterator[bytes]) -> StoredUpload:
        async def halves() -> AsyncIterator[bytes]:
            async for whole in content:
                yield whole[:300_000]
                self._fate.step()
                yield whole[300_000:]

        self._fate.step()
        stored = await super().put(upload_id, token, halves())
        self._fate.step()
        return stored


class ParcelDatabase:
    """A gateway's database; the transaction that releases a parcel ends early, or before its commit."""

    def __init__(self, postgres: Postgres, fate: Fate) -> None:
        self.connection = postgres.connection
        self._postgres, self._fate = postgres, fate

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with self._postgres.transaction() as connection:
            self._fate.step()
            yield connection
            self._fate.step()


class Relay(OutboxRelay):
    """Is woken after the commit."""

    def __init__(self, postgres: Postgres, fate: Fate) -> None:
        super().__init__(postgres, Publisher("amqp://127.0.0.1:1/"), park=park_unpublishable)
        self._fate = fate

    def wake(self) -> None:
        self._fate.step()


class ParcelRoom:
    """A gateway's database, in which parcels wait."""

    def __init__(self, postgres: Postgres, site: UploadSite) -> None:
        self.postgres, self.site = postgres, site
        self._carriers: list[Carrier] = []

    def gateway(
        self, fate: Fate | None = None, *, owner_bytes: int = 1 << 30, total_bytes: int = 1 << 30
    ) -> WaitingParcels:
        """Return the part of a gateway that has just been started."""
        fate = fate or Fate()
        self._carriers.append(carrier := Carrier(self.site.url, fate))
        asking: Any = Asking(self.site, fate)
        parcels, relay = Parcels(asking, carrier), Relay(self.postgres, fate)
        limits = ParcelLimits(owner_bytes, total_bytes)
        database: Any = ParcelDatabase(self.postgres, fate)
        return WaitingParcels(database, parcels, relay, self.mails, limits)

    @property
    def mails(self) -> WaitingMails:
        """The service that changes mails that wait."""
        return WaitingMails(self.postgres, Publisher("amqp://127.0.0.1:1/"))

    async def keep(
        self, content: bytes = SMALL, owner: str = "a", *, by: WaitingParcels | None = None
    ) -> Parcel:
        """Keep a parcel and a message that names it."""
        parcel = Parcel(new_id(), owner, 1, content)
        await self.accept(parcel, [naming(parcel)], by=by)
        return parcel

    async def accept(
        self, parcel: Parcel, messages: Sequence[Outgoing], *, by: WaitingParcels | None = None
    ) -> None:
        """Accept mails, whose messages are kept with a parcel that they name."""
        mails = [SendPackedEmail.model_validate_json(message.body) for message in messages]
        keep = await (by or self.gateway()).prepare(parcel, mails, Deadline.after(20))
        async with self.postgres.transaction() as connection:
            await connection.executemany(
                "INSERT INTO acceptances (id, owner_id, kind, status, accepted_at)"
                " VALUES ($1, $2, 'email', 'queued', now())",
                [(UUID(message.message_id), parcel.owner_id) for message in messages],
            )
            await keep(connection)

    async def status(self, parcel: Parcel) -> tuple[str, str | None]:
        """Return the status of the mail that a parcel was kept for, and the reason."""
        async with self.postgres.connection() as connection:
            query = "SELECT status, reason FROM acceptances WHERE id = $1"
            status, reason = await connection.fetchrow(query, parcel.id) or ("", None)
        return status, reason

    async def left(self) -> int:
        async with self.postgres.connection() as connection:
            # As if all leases had ended.
            await connection.execute("UPDATE waiting_parcels SET due_at = now()")
            return int(await connection.fetchval("SELECT count(*) FROM waiting_parcels"))

    async def outbox(self) -> list[UUID]:
        async with self.postgres.connection() as connection:
            return [UUID(message.message_id) for message in await waiting_messages(connection)]

    async def has_waiting_lock(self) -> bool:
        async with self.postgres.connection() as connection:
            query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
            return bool(await connection.fetchval(query))

    async def sent_all(self) -> bool:
        """Let another gateway continue; return whether nothing is left."""
        await self.gateway().send_due()
        return await self.left() == 0

    async def close(self) -> None:
        for carrier in self._carriers:
            await carrier.close()


def naming(parcel: Parcel) -> Outgoing:
    """Return a command with the id of the parcel that it names."""
    command = SendEmail(email_id=parcel.id, owner_id=parcel.owner_id, accepted_at=datetime.now(UTC))
    return envelope.command(command, message_id=parcel.id, tenant=parcel.owner_id)


@pytest.fixture
async def room(house: House, site: UploadSite) -> AsyncIterator[ParcelRoom]:
    postgres = Postgres(await house.database())
    await postgres.open()
    room = ParcelRoom(postgres, site)
    yield room
    await room.close()
    await postgres.close()


async def test_a_gateway_that_is_killed_at_any_step_loses_nothing_and_doubles_nothing(
    room: ParcelRoom,
) -> None:
    for at in range(1, STEPS + 1):
        parcel = await room.keep(LARGE)
        with suppress(Killed):
            await room.gateway(fate := Fate(at)).send_due()
        assert fate.done == at
        assert (await room.left() == 0) == (at == STEPS), f"step {at}"
        await until(room.sent_all)
        assert (await room.outbox()).count(parcel.id) == 1, f"step {at}"
        assert await room.site.content_of(parcel.id) == LARGE, f"step {at}"
    await room.keep(LARGE)
    await room.gateway(fate := Fate()).send_due()
    assert fate.done == STEPS
    assert await room.site.is_idle()


async def test_a_gateway_finds_what_another_has_kept_when_it_measures_what_waits(room: ParcelRoom) -> None:
    parcel = await room.keep()
    other = room.gateway()

    async def sent() -> bool:
        return await room.outbox() == [parcel.id]

    async with in_background(other.run()):
        await other.measure()
        await until(sent)


async def test_gateways_side_by_side_send_each_parcel_once(room: ParcelRoom) -> None:
    parcels = [await room.keep(owner=owner) for owner in "abc" for _ in range(4)]
    fates = [Fate(), Fate()]
    await asyncio.gather(*(room.gateway(fate).send_due() for fate in fates))
    assert sorted(await room.outbox()) == sorted(parcel.id for parcel in parcels)
    assert sum(len(fate.owners) for fate in fates) == len(parcels)


async def test_owners_take_turns_however_many_parcels_one_has_and_whether_or_not_email_takes_them(
    room: ParcelRoom,
) -> None:
    for _ in range(12):
        await room.keep(owner="a")
    others = [await room.keep(owner=owner) for owner in "bc"]
    await room.gateway(fate := Fate()).send_due()
    assert {"b", "c"} <= set(fate.owners[:4])
    refused = [await room.keep(owner="a") for _ in range(12)]
    others += [await room.keep(owner=owner) for owner in "bc"]
    await room.gateway(Fate(refused_owner="a")).send_due()
    left = await room.outbox()
    assert {parcel.id for parcel in others} <= set(left)
    assert not {parcel.id for parcel in refused} & set(left)
    await until(room.sent_all)
    assert {parcel.id for parcel in refused} <= set(await room.outbox())


async def test_while_a_backup_looks_at_the_databases_no_message_leaves_before_its_bytes(
    room: ParcelRoom,
) -> None:
    parcel = await room.keep()
    async with room.postgres.connection() as backup:
        await backup.execute("SELECT pg_advisory_lock(84251)")
        assert not await room.sent_all()
        assert await room.outbox() == []
        await backup.execute("SELECT pg_advisory_unlock(84251)")
    await until(room.sent_all)
    assert await room.outbox() == [parcel.id]


async def test_the_bytes_that_wait_are_bounded_by_owner_and_in_all_and_small_ones_count_too(
    room: ParcelRoom,
) -> None:
    least = LEAST_COUNTED_BYTES
    gateway = room.gateway(owner_bytes=2 * least, total_bytes=5 * least)
    # The limit of an owner, and then what it leaves free for those that have nothing here.
    for owner, most in (("a", 2), ("b", 1), ("c", 1), ("d", 1)):
        for _ in range(most):
            await room.keep(owner=owner, by=gateway)
        with pytest.raises(TooManyAtOnce):
            await room.keep(owner=owner, by=gateway)
    with pytest.raises(Overloaded):
        await room.keep(owner="e", by=gateway)
    with pytest.raises(PayloadTooLarge):
        await room.keep(bytes(MOST_UPLOAD_BYTES + 1))
    assert await room.left() == 5


async def test_the_messages_of_a_parcel_leave_together_in_their_order(room: ParcelRoom) -> None:
    parcel = Parcel(new_id(), "a", 3, SMALL)
    messages: Sequence[Outgoing] = [naming(Parcel(new_id(), "a", 1, b"")) for _ in range(3)]
    await room.accept(parcel, messages)
    await until(room.sent_all)
    assert await room.outbox() == [UUID(message.message_id) for message in messages]
    async with room.postgres.connection() as connection:
        assert await connection.fetchval("SELECT sum(messages) FROM outbox") == 3


async def test_requests_that_come_together_do_not_exceed_the_bytes_that_may_wait(room: ParcelRoom) -> None:
    gateways = [room.gateway(owner_bytes=3 * LEAST_COUNTED_BYTES) for _ in range(8)]
    kept = await asyncio.gather(*(room.keep(by=each) for each in gateways), return_exceptions=True)
    assert sorted(type(one).__name__ for one in kept) == ["Parcel"] * 3 + ["TooManyAtOnce"] * 5
    assert await room.left() == 3


async def test_a_parcel_that_email_refuses_for_good_ends_its_mails_and_others_go_on(room: ParcelRoom) -> None:
    refused, other = await room.keep(owner="a"), await room.keep(owner="b")
    await room.gateway(Fate(refused_owner="a", refusal=InvalidInput("too many parts"))).send_due()
    assert await room.status(refused) == ("failed", "too many parts")
    assert (await room.outbox(), await room.left()) == ([other.id], 0)


async def test_a_failure_of_email_itself_is_tried_again_and_ends_no_mail(room: ParcelRoom) -> None:
    parcel = await room.keep(owner="a")
    for refusal in (ServiceError("a bug"), Overloaded("full")):
        await room.gateway(Fate(refused_owner="a", refusal=refusal)).send_due()
        assert (await room.status(parcel), await room.left()) == (("queued", None), 1)
    await until(room.sent_all)


async def test_of_a_parcel_with_two_mails_one_is_cancelled_and_the_other_leaves(room: ParcelRoom) -> None:
    parcel = Parcel(new_id(), "a", 2, SMALL)
    first, second = (naming(Parcel(new_id(), "a", 1, b"")) for _ in range(2))
    await room.accept(parcel, [first, second])
    assert not await room.mails.cancel(UUID(first.message_id), owner_id="b")
    assert await room.mails.cancel(UUID(first.message_id), owner_id="a")
    assert not await room.mails.cancel(UUID(first.message_id), owner_id="a")
    await until(room.sent_all)
    assert await room.outbox() == [UUID(second.message_id)]
    assert not await room.mails.cancel(UUID(second.message_id), owner_id="a")
    async with room.site.postgres.connection() as connection:
        assert await connection.fetchval("SELECT mails_left FROM uploads WHERE id = $1", parcel.id) == 1


async def test_a_mail_is_either_cancelled_or_leaves_however_both_meet(room: ParcelRoom) -> None:
    for cancels_first in (True, False):
        parcel = Parcel(new_id(), "a", 2, SMALL)
        first, second = (naming(Parcel(new_id(), "a", 1, b"")) for _ in range(2))
        await room.accept(parcel, [first, second])
        email_id = UUID(first.message_id)

        async def release(parcel_id: UUID = parcel.id) -> bool:
            async with room.postgres.transaction() as connection:
                return await repository.release(connection, parcel_id)

        # Each begins while the other has done its work, and has not committed.
        async with room.postgres.transaction() as connection:
            if cancels_first:
                assert await repository.lock_mail(connection, email_id, "a") == parcel.id
                assert await repository.drop_mail(connection, parcel.id, email_id)
                behind = asyncio.create_task(release())
            else:
                assert await repository.release(connection, parcel.id)
                behind = asyncio.create_task(room.mails.cancel(email_id, owner_id="a"))
            await until(room.has_waiting_lock)
        assert await behind is cancels_first
        left = (await room.outbox())[-2:]
        assert (email_id in left) is not cancels_first
        assert UUID(second.message_id) in left


async def test_a_mail_that_waits_is_rescheduled_before_it_leaves(room: ParcelRoom) -> None:
    parcel = await room.keep(owner="a")
    send_at = datetime(2199, 1, 1, tzinfo=UTC)
    times: dict[str, Any] = {"send_at": send_at, "expires_at": None}
    assert not await room.mails.reschedule(parcel.id, owner_id="b", **times)
    assert await room.mails.reschedule(parcel.id, owner_id="a", **times)
    with pytest.raises(InvalidInput):
        await room.mails.reschedule(parcel.id, owner_id="a", send_at=send_at, expires_at=send_at)
    until_ = send_at + timedelta(hours=2)
    assert await room.mails.reschedule(parcel.id, owner_id="a", send_at=send_at, expires_at=until_)
    # What it has left before it expires moves along.
    later = send_at + timedelta(days=1)
    assert await room.mails.reschedule(parcel.id, owner_id="a", send_at=later, expires_at=None)
    await until(room.sent_all)
    async with room.postgres.connection() as connection:
        [message] = await waiting_messages(connection)
    command = SendPackedEmail.model_validate_json(message.body)
    assert (command.send_at, command.expires_at) == (later, until_ + timedelta(days=1))
    assert not await room.mails.reschedule(parcel.id, owner_id="a", **times)
