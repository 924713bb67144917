"""What item processes are forked from may be imported elsewhere, as by a test that imports all modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# With the number of filters of system calls, which all programs that this process starts would have, too.
IMPORT = """
from pathlib import Path
import batch_processor.execution.preloaded
print(Path("/proc/self/status").read_text().partition("Seccomp_filters:")[2].split()[0])
"""


def test_a_process_that_imports_what_items_are_forked_from_keeps_its_system_calls() -> None:
    before = Path("/proc/self/status").read_text().partition("Seccomp_filters:")[2].split()[0]
    found = subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True)
    assert found.stdout == f"{before}\n"
