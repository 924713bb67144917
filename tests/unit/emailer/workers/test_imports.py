"""The processes for the work of tenants start while a mail waits for them, so they import little."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRINT_IMPORTS = "import sys; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)"
# The libraries that the work of each needs.
LIBRARIES = {
    "emailer.writing.worker": set[str](),
    "emailer.templates.worker": {"css_inline", "jinja2", "markupsafe", "mjml"},
    "emailer.bounces.worker": {"flufl", "public", "zope"},
}


@pytest.mark.parametrize("worker", LIBRARIES)
def test_a_worker_process_imports_no_library_that_its_work_does_not_need(worker: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PRINT_IMPORTS.format(module=worker)],
        check=True,
        capture_output=True,
        text=True,
    )
    imported = answer.stdout.split()
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert packages <= {"contracts", "emailer", *LIBRARIES[worker]}
    # Of the standard library the event loop alone would double the time.
    assert "asyncio" not in imported
