"""A process gives memory back that it does not use any more."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from chassis import allocator

needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library of this machine is not glibc"
)

# Prints the MiB that stay with the process after blocks are freed between others that are still in use.
_BLOCKS = """
from pathlib import Path
from chassis import allocator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

at_first = resident()
large, small = [], []
for _ in range(400):
    large.append(bytearray(100 * 1024))
    small.append(bytearray(600))
large.clear()
{what}
print((resident() - at_first) >> 20)
"""
# Prints how many arenas the memory of twenty threads is in.
_THREADS = """
import ctypes, threading
from chassis import allocator

{what}
begun = threading.Barrier(20)

def work():
    begun.wait()
    bytearray(100_000)
    begun.wait()

threads = [threading.Thread(target=work) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
library.fclose.argtypes = [ctypes.c_void_p]
library.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
file = library.fopen(b"{file}", b"w")
library.malloc_info(0, file)
library.fclose(file)
print(open("{file}").read().count("<heap nr="))
"""


@needs_glibc
def test_pages_that_are_free_between_used_blocks_go_back_to_the_system() -> None:
    assert _printed(_BLOCKS, what="") > 30
    assert _printed(_BLOCKS, what="allocator.give_back()") < 5


@needs_glibc
def test_threads_share_two_arenas(tmp_path: Path) -> None:
    file = tmp_path / "arenas"
    assert _printed(_THREADS, what="", file=file) > 2
    assert _printed(_THREADS, what="allocator.limit_arenas()", file=file) == 2


def test_nothing_happens_where_the_c_library_is_another_one() -> None:
    elsewhere = SimpleNamespace()
    allocator.limit_arenas(elsewhere)
    allocator.give_back(elsewhere)


async def test_memory_is_given_back_until_the_process_ends() -> None:
    giving = asyncio.create_task(allocator.give_back_forever())
    await asyncio.sleep(0.05)
    assert not giving.done()
    giving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await giving


def _printed(program: str, **parts: object) -> int:
    """Return the number that the program prints with these parts."""
    source = program.format(**parts)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    return int(done.stdout)
