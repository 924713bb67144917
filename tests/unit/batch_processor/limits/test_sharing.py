"""Items pass where limits leave little room: owners in turn, nothing beyond the room, every item once."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from batch_processor.limits.rules import LimitRule
from batch_processor.limits.sharing import OwnerQueue, WaitingChunk, share

_SHARED = LimitRule("provider:x", 5)


def chunk(number: int, items: int, *, is_listed: bool = False) -> WaitingChunk:
    positions = [3 * n for n in range(items)] if is_listed else None
    last = positions[-1] if positions else items - 1
    return WaitingChunk(UUID(int=1), number, 0, last, positions, items)


def queue(owner: str, *sizes: int, piece: int = 1, limits: tuple[LimitRule, ...] = (_SHARED,)) -> OwnerQueue:
    return OwnerQueue(owner, limits, piece, [chunk(n, size) for n, size in enumerate(sizes)])


def test_owners_pass_in_turn_and_whoever_has_passed_is_behind_the_next_time() -> None:
    queues = [queue("ann", 100), queue("bob", 100), queue("cy", 1)]
    order: list[str] = []
    got: Counter[str] = Counter()
    for _ in range(9):
        passages, order = share(queues, {"provider:x": 1}, order=order, most=100)
        [passage] = passages
        got[next(q.owner_id for q in queues if passage.chunk in q.chunks and q.owner_id == order[-1])] += 1
    assert got == {"ann": 3, "bob": 3, "cy": 3}


def test_an_owner_that_has_no_queue_for_a_call_keeps_its_place() -> None:
    queues = {owner: queue(owner, 100) for owner in ("ann", "bob", "cy")}
    order: list[str] = []
    for present in (["ann", "bob", "cy"], ["ann"], ["ann", "bob", "cy"], ["cy"]):
        _, order = share([queues[owner] for owner in present], {"provider:x": 1}, order=order, most=100)
    assert order == ["ann", "bob", "cy"]


def test_a_queue_without_room_does_not_hold_the_next_one_of_its_owner() -> None:
    closed = LimitRule("batch:1", 1)
    queues = [queue("ann", 10, limits=(closed, _SHARED)), queue("ann", 10, piece=4)]
    passages, _ = share(queues, {"batch:1": 0, "provider:x": 6}, order=[], most=100)
    assert [passage.pieces for passage in passages] == [[4, 2]]
    assert passages[0].limits == (_SHARED,)


def test_without_limits_everything_passes_chunk_by_chunk() -> None:
    passages, _ = share([queue("ann", 3, 2, piece=2, limits=())], {}, order=[], most=100)
    assert [passage.pieces for passage in passages] == [[2, 1], [2]]
    assert [passage.is_whole for passage in passages] == [False, True]


def test_the_parts_of_a_chunk_are_its_positions_in_their_order() -> None:
    run, listed = chunk(1, 10), chunk(1, 10, is_listed=True)
    assert run.part(2, 3) == {"first_position": 2, "last_position": 4, "positions": None, "items": 3}
    assert listed.part(2, 3) == {
        "first_position": 6, "last_position": 12, "positions": [6, 9, 12], "items": 3,
    }  # fmt: skip


@given(
    sizes=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.lists(st.integers(1, 9), min_size=1, max_size=4),
            st.integers(1, 5),
            st.booleans(),
        ),
        max_size=6,
    ),
    shared=st.integers(0, 40),
    own=st.integers(0, 10),
    most=st.integers(1, 30),
)
def test_no_item_passes_beyond_the_room_and_room_is_left_only_where_none_could_pass(
    sizes: list[tuple[str, list[int], int, bool]], shared: int, own: int, most: int
) -> None:
    queues, rooms = [], {_SHARED.key: shared}
    for n, (owner, chunks, piece, has_own) in enumerate(sizes):
        limits = (LimitRule(f"batch:{n}", 1), _SHARED) if has_own else (_SHARED,)
        rooms |= {limit.key: own for limit in limits if limit is not _SHARED}
        queues.append(queue(owner, *chunks, piece=piece, limits=limits))
    passages, _ = share(queues, rooms, order=[], most=most)
    used: Counter[str] = Counter()
    for passage in passages:
        assert 0 < passage.items <= passage.chunk.items
        used.update({limit.key: passage.items for limit in passage.limits})
    assert all(used[key] <= room for key, room in rooms.items())
    pieces = sum(len(passage.pieces) for passage in passages)
    assert pieces <= most
    if pieces < most and used[_SHARED.key] < shared:
        waiting = sum(
            sum(chunks) if not has_own else min(own, sum(chunks)) for _, chunks, _, has_own in sizes
        )
        assert used[_SHARED.key] == waiting
