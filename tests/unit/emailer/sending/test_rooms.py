"""Mails with uploads share the room: one to an owner, and never all of it to domains that may not answer."""

from __future__ import annotations

from uuid import UUID, uuid4

from emailer.sending.rooms import UploadRooms

QUICK = {"quick.example", "fast.example"}


class NotedRooms(UploadRooms):
    """Rooms that note which mails have left."""

    def __init__(self) -> None:
        self.gone: list[UUID] = []
        super().__init__(is_quick=QUICK.__contains__, left=self.gone.append)

    def let_in(self, mail_id: UUID, owner_id: str, domain: str) -> bool:
        """Begin an attempt if it is allowed."""
        found = self.has_room(mail_id, owner_id=owner_id, domain=domain)
        if found:
            self.enter(mail_id, owner_id=owner_id, domain=domain)
        return found


def test_an_owner_has_room_for_one_mail_and_all_its_recipients() -> None:
    rooms, one, other = NotedRooms(), uuid4(), uuid4()
    assert rooms.let_in(one, "a", "quick.example")
    assert rooms.let_in(one, "a", "fast.example")
    assert not rooms.let_in(other, "a", "quick.example")
    rooms.rest(one, domain="quick.example")
    assert not rooms.let_in(other, "a", "quick.example")
    rooms.rest(one, domain="fast.example")
    assert rooms.let_in(other, "a", "quick.example")
    assert rooms.gone == [one]


def test_two_owners_with_mails_to_a_domain_that_never_answers_hold_one_room() -> None:
    rooms = NotedRooms()
    assert rooms.let_in(uuid4(), "a", "tarpit.example")
    assert not rooms.let_in(uuid4(), "b", "tarpit.example")
    assert rooms.let_in(uuid4(), "c", "unknown.example")
    assert rooms.let_in(uuid4(), "d", "quick.example")


def test_the_last_room_is_for_domains_that_answer() -> None:
    rooms = NotedRooms()
    assert rooms.let_in(uuid4(), "a", "tarpit.example")
    assert rooms.let_in(uuid4(), "b", "swamp.example")
    assert not rooms.let_in(uuid4(), "c", "bog.example")
    assert rooms.let_in(quick := uuid4(), "d", "quick.example")
    assert not rooms.let_in(quick, "d", "bog.example")
    assert not rooms.let_in(uuid4(), "e", "quick.example")


def test_a_mail_keeps_its_room_between_attempts_until_another_needs_it() -> None:
    rooms, mails = NotedRooms(), [uuid4() for _ in range(4)]
    for number, mail_id in enumerate(mails[:3]):
        assert rooms.let_in(mail_id, f"{number}", "quick.example")
    rooms.rest(mails[1], domain="quick.example")
    assert rooms.gone == []
    assert rooms.let_in(mails[3], "3", "quick.example")
    assert rooms.gone == [mails[1]]
    rooms.leave(mails[0])
    rooms.rest(mails[0], domain="quick.example")
    assert rooms.let_in(mails[1], "1", "quick.example")
