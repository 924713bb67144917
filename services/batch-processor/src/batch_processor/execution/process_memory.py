"""The memory that item processes use beside their own, which counts under no limit of the kernel."""

from __future__ import annotations

from batch_processor.execution import descendants

EXCEEDED = "its shared memory, or the memory of processes that it had started, exceeded the limit"


def exceeds(pid: int, limit: int) -> bool:
    """Return whether what a process shares, and all that it has started use, is more than `limit` bytes.

    It is nothing for a process that is gone.
    """
    started = descendants.of(pid)
    most = shared_bytes(pid) + sum(_of(each, "status", b"RssAnon:", b"RssShmem:") for each in started)
    if most <= limit or not started:
        return most > limit
    # What copies of a process have in common counts once. This takes milliseconds for each of them.
    own = _of(pid, "smaps_rollup", b"Pss_Shmem:")
    return own + sum(_of(each, "smaps_rollup", b"Pss_Anon:", b"Pss_Shmem:") for each in started) > limit


def shared_bytes(pid: int) -> int:
    """Return the memory that a process uses and shares; 0 if it is gone."""
    return _of(pid, "status", b"RssShmem:")


def _of(pid: int, name: str, *fields: bytes) -> int:
    try:
        text = descendants.read(f"/proc/{pid}/{name}")
    except OSError:
        return 0
    return sum(_kib(text, each) for each in fields) * 1024


def _kib(text: bytes, name: bytes) -> int:
    _, _, found = text.partition(b"\n" + name)
    return int(found.split(None, 1)[0]) if found else 0
