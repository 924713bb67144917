"""What a restore does before it removes anything, with a stand-in for docker and its containers."""

from __future__ import annotations

import errno
import json
import os
import re
import tarfile
from dataclasses import dataclass
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
    *pg_restore*"$FAILS"*) cat >/dev/null; echo "$REASON" >&2; exit 1 ;;
    *psql*) cat >>"$CALLS" ;;
esac
"""


@dataclass(frozen=True)
class Restoring:
    """A backup, and a stack that restores it by a stand-in for docker."""

    stack: ComposeStack
    file: Path
    calls: Path


def restoring(folder: Path, *, fails: str, reason: str) -> Restoring:
    """Return a backup, and a stack whose `pg_restore` fails if its arguments contain `fails`."""
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    work, calls = folder / "work", folder / "calls"
    work.mkdir()
    for database in DATABASES.values():
        (work / f"{database}.dump").write_bytes(b"PGDMP\x01\x10\x00")
    (work / "messages.ndjson").touch()
    (work / "secrets.json").write_text(json.dumps({"pepper": "of the backup"}))
    file = archive.pack(work, folder, began=datetime.now(UTC), schema={"gateway": ["gateway/9999_later"]})
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls)}
    environment |= {"FAILS": fails, "REASON": reason}
    return Restoring(ComposeStack(folder, folder / "secrets", environment), file, calls)


def test_a_backup_of_a_newer_postgresql_is_refused_before_anything_is_removed(tmp_path: Path) -> None:
    found = restoring(tmp_path, fails="--list", reason="unsupported version (1.16) in file header")
    with pytest.raises(UpkeepError, match=r"nothing was changed \(docker failed \(1\): unsupported version"):
        backups.restore(found.stack, found.file, passphrase=None, say=print)
    asked = found.calls.read_text()
    assert "DROP DATABASE" not in asked
    assert not (tmp_path / "secrets").exists()
    # The services that had to stop run again.
    assert asked.splitlines()[-1].startswith("up --wait --no-recreate gateway")


def test_a_restore_that_fails_at_the_last_database_leaves_all_as_they_were(tmp_path: Path) -> None:
    last = list(DATABASES.values())[-1]
    found = restoring(tmp_path, fails=f"--role={last}", reason="No space left on device")
    said: list[str] = []
    with pytest.raises(
        UpkeepError, match=r"databases are as they were before: docker failed .* No space left"
    ):
        backups.restore(found.stack, found.file, passphrase=None, say=said.append)
    assert "gateway: of a later release, and this must be the one before it: gateway/9999_later" in said
    asked = found.calls.read_text()
    changed = set(re.findall(r'(?:DROP|CREATE|ALTER) DATABASE (?:IF EXISTS )?"(\w+)"', asked))
    assert changed == {f"{database}_restoring" for database in DATABASES.values()}
    assert not (tmp_path / "secrets").exists()


def test_a_full_disk_is_not_taken_for_a_damaged_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    found = restoring(tmp_path, fails="--list", reason="")
    monkeypatch.setattr(tarfile.TarFile, "extractall", fill)
    with pytest.raises(UpkeepError, match=r"could not be unpacked .*: No space left on device. TMPDIR"):
        backups.restore(found.stack, found.file, passphrase=None, say=print)
