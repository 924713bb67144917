"""The criteria by which a neighbour complains of guests: noise of the machine cannot break them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from faults import neighbours, table
from faults import street as streets
from faults.guests import BY_NAME, GUESTS, Guest
from faults.neighbour import Diary
from faults.neighbours import ERRANDS, GuestRow
from faults.street import Street, memory_limits
from faults.vitals import Vitals
from native.services import NAMES

_SECONDS = 3.0
_MIB = 1 << 20


@pytest.fixture(scope="module")
async def street(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Street]:
    async with streets.running(tmp_path_factory.mktemp("street")) as running:
        yield running


@pytest.mark.timeout(180)
@pytest.mark.parametrize("guest", [one for one in GUESTS if one.is_quick], ids=lambda one: one.name)
async def test_a_neighbour_is_served_whatever_a_guest_sends(street: Street, guest: Guest) -> None:
    row = await neighbours.visit(street, replace(guest, seconds=_SECONDS))
    print(neighbours.report(row))
    assert [one.text for one in row.complaints if one.is_certain] == []


def good_row() -> GuestRow:
    diary = Diary(
        latencies_s=[0.01] * 200,
        arrivals_s=[0.02],
        said=["a", "b"],
        heard=["a", "b"],
        errands_s={errand: [0.5] for errand in ERRANDS},
    )
    vitals = {name: Vitals(256 * _MIB, peak_bytes=80 * _MIB, slowest_s=0.1) for name in NAMES}
    return GuestRow(BY_NAME["heads"], "5 heads", diary, vitals)


def test_a_neighbour_who_noticed_nothing_complains_of_nothing() -> None:
    assert good_row().complaints == ()


def test_every_broken_promise_is_complained_of() -> None:
    row = good_row()
    row.diary.latencies_s = [0.01] * 98 + [0.3, 0.3]
    row.diary.heard = ["a"]
    row.diary.errands_s["batch"] = [11.0]
    row.diary.undone["mail"] += 1
    row.diary.arrivals_s = []
    row.diary.refused["a new connection: 503"] += 1
    row.diary.troubles["the socket"] += 1
    gateway = row.vitals["gateway"]
    gateway.peak_bytes = 257 * _MIB
    gateway.slowest_s, gateway.lag_s = 2.2, 2.5
    row.vitals["email"].unready = ["{'database': 'away'}"]
    row.vitals["stock-data"].slowest_s, row.vitals["stock-data"].lag_s = 3.0, 0.5
    certain = {one.what for one in row.complaints if one.is_certain}
    maybe = {one.what for one in row.complaints if not one.is_certain}
    assert certain == {"push", "mail", "arrival", "refused", "memory", "unready", "stall"}
    assert maybe == {"p99", "batch", "trouble", "stall"}


def test_a_line_that_arrives_twice_or_out_of_order_counts_as_lost() -> None:
    assert Diary(said=["a", "b"], heard=["a", "a", "b"]).lost == ["a"]
    assert Diary(said=["a", "b"], heard=["b", "a"]).lost == ["the order"]


def test_every_container_has_a_limit_of_memory() -> None:
    assert set(memory_limits()) == set(NAMES)
    assert min(memory_limits().values()) >= 128 * _MIB


def test_a_row_of_the_table_shows_the_result_of_a_guest() -> None:
    line = table.render_guests([good_row()]).splitlines()[2]
    assert line.startswith(
        "| heads | anonymous connection | heads of 16 MiB and of 1,000 fields (5 heads) | 10 ms of 201"
    )
    assert "| 0 of 2 | 0.5 s | 0.5 s | 0.5 s | 0.5 s | 0.5 s | 80 MiB, 0.10 s |" in line


def test_a_guest_that_sent_nothing_proves_nothing() -> None:
    assert [one.what for one in replace(good_row(), sent="0 heads").complaints] == ["guest"]


def test_the_table_of_the_document_has_a_row_of_every_guest() -> None:
    text = table.DOCUMENT.read_text(encoding="utf-8")
    found = text.partition(table.GUESTS_BEGIN)[2].partition(table.GUESTS_END)[0]
    rows = [line for line in found.splitlines() if line.startswith("| ")][2:]
    # What a guest sends may have changed since: the rows have the words of the run that they are of.
    assert [row.removeprefix("| ").split(" | ")[0] for row in rows] == [guest.name for guest in GUESTS]
