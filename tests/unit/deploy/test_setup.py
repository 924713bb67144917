"""The message of the setup where it cannot write."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

SETUP = Path(__file__).resolve().parents[3] / "deploy/native/setup.sh"
# For root every folder can be written.
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.geteuid() == 0 else ()


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out() -> None:
    with TemporaryDirectory() as name:
        clone = Path(name) / "clone"
        (clone / "deploy/native").mkdir(parents=True)
        shutil.copy(SETUP, clone / "deploy/native")
        (clone / "requirements.lock").touch()
        clone.chmod(0o555)
        Path(name).chmod(0o755)
        words = [*AS_NOBODY, "sh", "deploy/native/setup.sh", "--packages"]
        done = subprocess.run(words, cwd=clone, capture_output=True, text=True, timeout=60, check=False)
        clone.chmod(0o755)
    assert done.returncode == 1
    first, second = done.stderr.strip().splitlines()
    assert f"cannot write to {clone}" in first
    assert second.startswith("Next: clone Tickwire into a folder that this user may write to")
    assert "Errno" not in done.stderr + done.stdout
