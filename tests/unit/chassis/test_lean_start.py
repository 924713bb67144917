"""A service does not import what it does not use: that would take memory in each of four processes."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from chassis import lean

# The export of spans is off by default, rich draws nothing, and the calendar of sessions is a file.
HEAVY = ("google.protobuf", "holidays", "opentelemetry.sdk", "psutil", "pygments", "rich", "wrapt")
# Templates are rendered, and items run, in processes of their own.
ELSEWHERE = {
    "gateway": ("fastapi",),
    "emailer": ("css_inline", "jinja2", "mjml"),
    "batch_processor": ("numpy",),
}


@pytest.mark.parametrize("package", ["gateway", "stock_data", "emailer", "batch_processor"])
def test_a_service_starts_without_what_it_does_not_use(package: str) -> None:
    assert loaded(f"{package}.__main__", HEAVY + ELSEWHERE.get(package, ())) == "[]"


def test_the_operations_are_imported_without_numpy() -> None:
    reading = "batch_processor.operations; batch_processor.operations.discover()"
    assert loaded(reading, ("numpy",)) == "[]"


def test_the_process_that_items_are_forked_from_is_as_lean_as_the_service() -> None:
    assert loaded("batch_processor.execution.preloaded", (*HEAVY, "fastapi", "numpy")) == "[]"


def test_garbage_is_collected_again_after_the_imports_and_only_if_it_was_before() -> None:
    with lean.without():
        assert not gc.isenabled()
        with lean.without():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_service_collects_garbage() -> None:
    program = "import gc, gateway.__main__; print(gc.isenabled())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def loaded(module: str, unwanted: tuple[str, ...]) -> str:
    """Return which of the packages a process has that imports a module."""
    program = f"import sys, {module}; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()
