"""The bytes that connections hold together, and which of them give theirs up beyond the limit."""

from __future__ import annotations

from chassis.http1.held_bytes import HeldBytes


class HoldingClient:
    """A connection of `payer` that notes in `gone` that it has let go."""

    def __init__(self, payer: str, gone: list[str]) -> None:
        self.payer = payer
        self._gone = gone

    def let_go(self) -> None:
        self._gone.append(self.payer)


def test_the_largest_of_whoever_holds_the_most_lets_go_until_an_eighth_is_free() -> None:
    held, gone = HeldBytes(800), list[str]()
    held.hold(HoldingClient("alone", gone), 300)
    for size in (100, 250, 150):
        held.hold(HoldingClient("many", gone), size)
    assert (gone, held.total) == ([], 800)
    held.hold(HoldingClient("third", gone), 1)
    assert (gone, held.total) == (["many"], 551)


def test_what_was_read_or_taken_counts_no_more() -> None:
    held, gone = HeldBytes(800), list[str]()
    clients = [HoldingClient("one", gone) for _ in range(10)]
    for client in clients:
        held.hold(client, 700)
        held.hold(client, 0)
    assert (gone, held.total) == ([], 0)


def test_one_that_holds_fewer_than_before_makes_nobody_let_go() -> None:
    gone: list[str] = []
    held = HeldBytes(800)
    client = HoldingClient("one", gone)
    held.hold(client, 800)
    held.hold(client, 799)
    held.hold(client, 800)
    assert (gone, held.total) == ([], 800)
