"""A backup is whole, or it is refused."""

from __future__ import annotations

import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from upkeep import archive
from upkeep.errors import UpkeepError

BEGAN = datetime(2026, 11, 27, 3, 15, tzinfo=UTC)


def packed(folder: Path, began: datetime = BEGAN) -> Path:
    work = folder / f"work-{began:%d%H}"
    work.mkdir()
    (work / "gateway.dump").write_bytes(b"rows")
    (work / "messages.ndjson").write_text("")
    return archive.pack(work, folder, began=began, schema={"gateway": ["gateway/0001_create_users_and_keys"]})


def test_an_archive_comes_back_with_its_manifest(tmp_path: Path) -> None:
    file = packed(tmp_path)
    assert file.name == "tickwire-20261127T031500Z.tar"
    assert file.stat().st_mode & 0o777 == 0o600
    manifest = archive.unpack(file, tmp_path)
    assert manifest["made_at"] == "2026-11-27T03:15:00+00:00"
    assert (tmp_path / "gateway.dump").read_bytes() == b"rows"


def test_a_changed_part_is_named(tmp_path: Path) -> None:
    file = packed(tmp_path)
    with tarfile.open(file) as found:
        found.extractall(tmp_path / "changed", filter="data")
    (tmp_path / "changed/gateway.dump").write_bytes(b"rowz")
    with tarfile.open(file, "w") as made:
        for part in (tmp_path / "changed").iterdir():
            made.add(part, part.name)
    with pytest.raises(UpkeepError, match=r"checksum of gateway\.dump is wrong"):
        archive.unpack(file, tmp_path / "again")


def test_a_file_that_is_no_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.tar").write_bytes(b"nothing of the kind")
    with pytest.raises(UpkeepError, match="is not a backup"):
        archive.unpack(tmp_path / "other.tar", tmp_path)


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"format": 1}', "7", "no JSON"])
def test_an_archive_of_something_else_is_refused(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with tarfile.open(tmp_path / "other.tar", "w") as made:
        made.add(tmp_path / "manifest.json", "manifest.json")
    with pytest.raises(UpkeepError, match="is not a backup"):
        archive.unpack(tmp_path / "other.tar", tmp_path / "work")


def test_backups_are_listed_from_the_newest_sealed_ones_too_and_nothing_else(tmp_path: Path) -> None:
    files = [packed(tmp_path, BEGAN + timedelta(hours=hours)) for hours in range(3)]
    files[1] = files[1].rename(f"{files[1]}.sealed")
    others = "tickwire-0.9.tar", "tickwire-20261126T031500Z.tar.part", "tickwire-before-the-move.tar"
    for other in ("notes.txt", *others):
        (tmp_path / other).touch()
    assert archive.listed(tmp_path) == files[::-1]
