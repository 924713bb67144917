"""A worker's reports on its chunks: the items that ended, and the chunks in which the others continue."""

from __future__ import annotations

from collections.abc import Sequence

from batch_processor.execution.claims import Claim, Loaded, RemainingItems
from batch_processor.execution.running_chunk import Death, ItemFailure, Outcomes, RunningChunk
from batch_processor.execution.settlement import ChunkReport
from chassis import logging

log = logging.get(__name__)

# An item that runs alone fails when so many processes have died with it.
_MOST_LOST = 3
# The number of chunks over which the items of a dead process are spread, and those that are left of a chunk
# after its turn.
_SPREAD = 16


def of_lost(chunk: Loaded) -> ChunkReport | None:
    """Return the report of a chunk whose workers were lost: split it in halves, and fail a single item.

    Return None for a chunk that must be run; the items of a suspect chunk run one at a time.
    """
    claim, positions = chunk.claim, [item.position for item in chunk.items]
    is_hopeless = claim.lost >= _MOST_LOST
    if not positions or not (is_hopeless or (claim.lost and len(positions) > 1 and not claim.suspect)):
        return None
    rests = [chunk.beyond] if chunk.beyond else []
    if len(positions) == 1:
        failed = Outcomes(failures=[_died(positions[0], claim.lost, "")])
        return ChunkReport(claim, "done", failed, rests=rests)
    log.warning("chunk split after its worker was lost", batch_id=str(claim.batch_id), items=len(positions))
    middle = len(positions) // 2
    rests += [RemainingItems.of(half, claim.attempt) for half in (positions[:middle], positions[middle:])]
    return ChunkReport(claim, "done", rests=rests)


def of_running(
    claim: Claim, run: RunningChunk, beyond: RemainingItems | None, *, begins: bool, has_had_turn: bool
) -> ChunkReport:
    """Return the report of a running chunk.

    If it `has_had_turn`, its items that have not begun continue in other chunks: the running ones take long,
    as they have not ended since.
    """
    outcomes, left = run.take(), run.not_begun if has_had_turn else []
    keeps = sorted(set(run.unfinished).difference(left))
    if not left or not keeps or claim.gate is not None or claim.suspect:
        return ChunkReport(claim, "running", outcomes, begins=begins)
    rests = [*([beyond] if beyond else []), *_spread(claim, left, begun=run.size - len(left), run=claim.run)]
    return ChunkReport(claim, "running", outcomes, rests=rests, begins=begins, keeps=keeps)


def of_ended(
    claim: Claim,
    run: RunningChunk,
    beyond: RemainingItems | None,
    *,
    is_cancelled: bool = False,
    has_had_turn: bool = False,
) -> ChunkReport:
    """Return the last report of a chunk that no longer runs; `beyond` did not fit into memory.

    A chunk that `has_had_turn` was too large for the time that its items take: its other items continue in
    chunks of as many items as it has begun in its turn, so that free slots share them.
    """
    outcomes, rests = run.take(), [beyond] if beyond else []
    if is_cancelled:
        cancelled = dict.fromkeys(run.unfinished, claim.attempt)
        cancelled |= dict.fromkeys(cancelled.keys() & set(run.not_begun), claim.attempt - 1)
        return ChunkReport(claim, "done", outcomes, cancelled=cancelled, rests=rests)
    if run.death is not None:
        rests += _after_death(claim, run, run.death, outcomes)
    elsewhere = {*run.retries, *(run.death.suspects if run.death is not None else ())}
    left = [position for position in run.unfinished if position not in elsewhere]
    begun = run.size - len(left)
    is_too_large = has_had_turn and len(left) > begun > 0 and claim.gate is None and not claim.suspect
    if left and not elsewhere and not rests and not is_too_large:
        return ChunkReport(claim, "ready", outcomes)
    if run.retries and run.retry_delay_s is not None:
        rests.append(RemainingItems.of(run.retries, claim.attempt + 1, delay_s=run.retry_delay_s))
    if left:
        # These have not begun; those of a suspect chunk stay suspect. They keep their place ahead of the
        # owner's other chunks, unless a process died: that may happen again, and others must not wait for it.
        place = claim.run if run.death is None else 0
        rests += _spread(claim, left, begun=begun if is_too_large else len(left), run=place)
    return ChunkReport(claim, "done", outcomes, rests=rests)


def _spread(claim: Claim, left: Sequence[int], *, begun: int, run: int) -> list[RemainingItems]:
    """Return `left` in chunks of about as many items as have `begun` in a turn."""
    size = -(-len(left) // min(_SPREAD, -(-len(left) // begun)))
    lost = claim.lost if claim.suspect else 0
    return [
        RemainingItems.of(left[n : n + size], claim.attempt, lost=lost, suspect=claim.suspect, run=run)
        for n in range(0, len(left), size)
    ]


def _after_death(claim: Claim, run: RunningChunk, death: Death, outcomes: Outcomes) -> list[RemainingItems]:
    """Return the chunks in which the items that were running continue, one at a time; fail a culprit."""
    lost, suspects = claim.lost + 1, death.suspects
    if len(suspects) > 1 or death.is_shared:
        parts = [suspects[first::_SPREAD] for first in range(min(_SPREAD, len(suspects)))]
        return [RemainingItems.of(part, claim.attempt, lost=lost, suspect=True) for part in parts]
    [position] = suspects
    if not death.is_late:
        died = _died(position, lost, f" {death.detail}")
        if lost < _MOST_LOST:
            outcomes.setbacks.append(died)
            return [RemainingItems.of(suspects, claim.attempt, lost=lost, suspect=True)]
        outcomes.failures.append(died)
        return []
    late = ItemFailure(position, "timeout", death.detail)
    if run.retry_delay_s is None:
        outcomes.failures.append(late)
        return []
    outcomes.setbacks.append(late)
    delay_s = run.retry_delay_s
    return [RemainingItems.of(suspects, claim.attempt + 1, delay_s=delay_s, lost=claim.lost, suspect=True)]


def _died(position: int, lost: int, detail: str) -> ItemFailure:
    return ItemFailure(position, "worker-died", f"{lost} processes died while they ran this item.{detail}")
