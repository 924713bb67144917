"""Verbs with options that are missing or wrong, before they ask anything of an installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from native.directories import RunDirectory
from native.settings import NativeSettings
from upkeep import backups
from upkeep.__main__ import main
from upkeep.backups import BackupOptions
from upkeep.errors import UpkeepError
from upkeep.native_stack import NativeStack


@pytest.mark.parametrize("key", ["", "fifteen letters"])
def test_a_backup_with_a_key_that_is_empty_or_too_short_is_not_begun(tmp_path: Path, key: str) -> None:
    said: list[str] = []
    options = BackupOptions(tmp_path / "backups", key, 7)
    with pytest.raises(UpkeepError, match="BACKUP_KEY must have at least 16 characters"):
        backups.write(
            NativeStack(RunDirectory(tmp_path / ".run"), NativeSettings()), options, say=said.append
        )
    assert said == []
    assert not options.folder.exists()


def test_rotate_without_a_secret_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--way", "native", "--run-dir", str(tmp_path / ".run"), "rotate"]) == 0
    listed = {line.strip() for line in capsys.readouterr().out.splitlines()}
    assert {"api-key", "pepper", "postgres", "postgres-emailer", "rabbitmq-email"} <= listed
