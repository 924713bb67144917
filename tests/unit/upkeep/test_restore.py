"""What a restore does before it removes anything, with a stand-in for docker and its containers."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from upkeep import archive, backups
from upkeep.compose_stack import ComposeStack
from upkeep.errors import UpkeepError
from upkeep.installation import DATABASES

DOCKER = """\
#!/bin/sh
shift 3
echo "$*" >>"$CALLS"
case "$*" in
    config*) echo '{"services": {"secrets": {"environment": {}}}}' ;;
    "ps "*) echo 0123abcd ;;
    *pg_restore*--list*) echo "unsupported version (1.16) in file header" >&2; exit 1 ;;
    *psql*) cat >>"$CALLS" ;;
esac
"""


def test_a_backup_of_a_newer_postgresql_is_refused_before_anything_is_removed(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    work, calls = tmp_path / "work", tmp_path / "calls"
    work.mkdir()
    for database in DATABASES.values():
        (work / f"{database}.dump").write_bytes(b"PGDMP\x01\x10\x00")
    (work / "messages.ndjson").touch()
    (work / "secrets.json").write_text(json.dumps({"pepper": "of the backup"}))
    file = archive.pack(work, tmp_path, began=datetime.now(UTC), schema={})
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
    stack = ComposeStack(tmp_path, tmp_path / "secrets", environment)
    with pytest.raises(UpkeepError, match=r"nothing was changed \(docker failed \(1\): unsupported version"):
        backups.restore(stack, file, passphrase=None, say=print)
    asked = calls.read_text()
    assert "DROP DATABASE" not in asked
    assert not (tmp_path / "secrets").exists()
    # The services that had to stop run again.
    assert asked.splitlines()[-1].startswith("up --wait --no-recreate gateway")
