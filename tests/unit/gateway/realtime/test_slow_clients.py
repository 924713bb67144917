"""The bytes that wait for all slow clients together, and the clients that are cut off beyond the limit."""

from __future__ import annotations

from gateway.realtime.slow_clients import SlowClients, WaitingBytes


class WatchedClients:
    """Clients for whom 800 bytes may wait together, and the names of the connections that were cut off."""

    def __init__(self) -> None:
        self.slow_clients = SlowClients(800)
        self.cut: list[str] = []

    def connection(self, owner: str, name: str) -> WaitingBytes:
        def cut_off() -> None:
            self.cut.append(name)
            # As a session does: its queue is dropped at once.
            waiting.in_queue(0)

        waiting = WaitingBytes(self.slow_clients, cut_off=cut_off)
        waiting.owner = owner
        return waiting


def test_the_largest_connection_of_the_owner_with_the_most_gives_way() -> None:
    clients = WatchedClients()
    alone = clients.connection("alone", "alone")
    alone.in_queue(300)
    for number, size in enumerate((100, 200, 150)):
        clients.connection("many", str(number)).in_transport(size)
    assert clients.cut == []
    alone.in_queue(351)
    assert clients.cut == ["1"]
    assert clients.slow_clients.total == 601


def test_connections_give_way_until_an_eighth_is_free() -> None:
    clients = WatchedClients()
    for number in range(9):
        clients.connection("guest", str(number)).in_queue(100)
    assert len(clients.cut) == 2
    assert clients.slow_clients.total == 700


def test_the_one_for_which_too_much_comes_is_cut_off_itself_when_it_is_the_largest() -> None:
    clients = WatchedClients()
    clients.connection("neighbour", "small").in_queue(10)
    large = clients.connection("guest", "large")
    large.in_transport(400)
    large.in_queue(500)
    assert clients.cut == ["large"]
    assert clients.slow_clients.total == 10


def test_what_clients_have_read_counts_no_more() -> None:
    clients = WatchedClients()
    for number in range(5):
        reader = clients.connection("guest", str(number))
        reader.in_transport(300)
        reader.in_queue(400)
        reader.in_queue(0)
        reader.in_transport(0)
    assert (clients.cut, clients.slow_clients.total) == ([], 0)
