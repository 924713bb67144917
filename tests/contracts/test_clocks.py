"""No test asserts how long something took, because such a test fails by chance on a busy machine.

It asserts an order (one thing came before another ended), a count, or that work ends at all which would take
longer than a test may. Faults, benchmarks and deployments do measure times: these are what they are about.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FOLDERS = ("contracts", "e2e", "integration", "support", "unit")
# They wait until a time is over, or serve the tests of deployments.
TIMERS = {"support/deployment/composed.py", "support/deployment/kubelet.py", "support/waiting.py"}
CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time"}
KEEPING = {"append", "setdefault"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def is_reading(node: ast.AST) -> bool:
    """Return whether an expression reads a clock that tells no date: `time.monotonic()`, `loop.time()`."""
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    owner, _, name = called.rpartition(".")
    return name.removesuffix("_ns") in CLOCKS or (name == "time" and owner not in ("", "time"))


def readings_in(function: ast.AST) -> set[str]:
    """Return the names of readings of a clock in a function; of elements, the name of their container."""
    found = set()
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            found |= {name_of(place) for place, value in pairs if is_reading(value)}
    return found


def kept_in(function: ast.AST) -> set[str]:
    """Return the names of the containers in which a function keeps readings of a clock."""
    calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
    return {
        name_of(call.func.value)
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in KEEPING
        if any(is_reading(value) for value in call.args)
    }


def name_of(place: ast.AST) -> str:
    return ast.unparse(place.value if isinstance(place, ast.Subscript) else place)


def durations(source: str) -> Iterator[int]:
    """Yield the lines that subtract a reading of a clock from something, or something from one."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, FUNCTIONS)]
    # What one function keeps in a container, another one may read.
    kept = {name for function in functions for name in kept_in(function)}
    for function in functions:
        readings = readings_in(function) | kept
        subtractions = (
            node
            for node in ast.walk(function)
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)
        )
        for node in subtractions:
            if any(is_reading(side) or name_of(side) in readings for side in (node.left, node.right)):
                yield node.lineno


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_test_measures_how_long_something_takes(folder: str) -> None:
    files = [file for file in sorted((TESTS / folder).rglob("*.py")) if file != Path(__file__)]
    assert files
    found = {str(file.relative_to(TESTS)) for file in files if any(durations(file.read_text()))}
    assert found - TIMERS == set()


@pytest.mark.parametrize(
    "source",
    [
        "def note():\n    arrived.setdefault(name, time.monotonic())\nwait = arrived[name] - at",
        "began = time.monotonic()\nwork()\nassert time.monotonic() - began < 1",
        "began = time.perf_counter_ns()\nwork()\nended = time.perf_counter_ns()\nassert ended - began < 1",
        "first, began = work(), loop.time()\nwaits.append(loop.time() - began)",
        "seen[name] = asyncio.get_running_loop().time()\nassert other - seen[name] < 1",
        "self.began = time.process_time()\ntook = now - self.began",
    ],
)
def test_a_measured_time_is_found(source: str) -> None:
    lines = source.replace("\n", "\n    ")
    assert list(durations(f"async def test_x():\n    {lines}"))


@pytest.mark.parametrize(
    "source",
    [
        "end = time.monotonic() + 20\nassert time.monotonic() < end",
        "session.tick(time.monotonic() + 61)",
        "exp = int(time.time()) - 60",
        "assert datetime.now(UTC) - as_of < timedelta(seconds=10)",
    ],
)
def test_dates_deadlines_and_clocks_that_are_put_forward_are_no_measured_times(source: str) -> None:
    lines = source.replace("\n", "\n    ")
    assert not list(durations(f"async def test_x():\n    {lines}"))
