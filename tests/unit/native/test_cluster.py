"""Where PostgreSQL's files are when root starts it, whose folders its user may not enter."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from native.cluster import Cluster
from native.directories import RunDirectory
from native.errors import NativeError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user"),
]


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that only root may enter; clusters made for it are removed."""
    open_to_all = [folder for folder in (tmp_path, *tmp_path.parents) if not folder.stat().st_mode & 0o001]
    modes = {folder: folder.stat().st_mode for folder in open_to_all}
    for folder in open_to_all:
        folder.chmod(0o755)
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    before = set(home_of(folder).parent.glob("tickwire-*"))
    yield folder
    for made in set(home_of(tmp_path / "none").parent.glob("tickwire-*")) - before:
        shutil.rmtree(made)
    for one, mode in modes.items():
        one.chmod(mode)


def cluster_of(folder: Path) -> Cluster:
    return Cluster(RunDirectory.at(folder / "run"), temporary=True)


def home_of(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return cluster_of(folder).home


def filled(home: Path) -> Path:
    """Put data into a cluster."""
    (home / "cluster").mkdir(parents=True)
    (home / "cluster" / "PG_VERSION").write_text("15\n")
    return home


def test_data_stays_elsewhere_when_its_user_may_enter_the_run_directory_later(closed: Path) -> None:
    home = filled(home_of(closed))
    closed.chmod(0o755)
    assert home_of(closed) == home
    assert cluster_of(closed).moved


def test_data_that_its_user_cannot_enter_any_more_is_named_and_no_other_is_made(closed: Path) -> None:
    closed.chmod(0o755)
    home = filled(home_of(closed))
    closed.chmod(0o700)
    with pytest.raises(NativeError, match=f"The data of PostgreSQL is in {home}, which its user"):
        home_of(closed)


def test_data_elsewhere_follows_a_run_directory_that_is_moved(closed: Path) -> None:
    home = home_of(closed)
    assert cluster_of(closed).settle(is_first=True) is None
    filled(home)
    moved = closed.rename(closed.with_name("moved"))
    assert cluster_of(moved).settle(is_first=False) is None
    assert (home_of(moved) / "cluster" / "PG_VERSION").exists()
    assert not home.exists()


def test_data_of_a_run_directory_that_was_removed_is_set_aside(closed: Path) -> None:
    home = filled(home_of(closed))
    shutil.rmtree(closed / "run")
    aside = cluster_of(closed).settle(is_first=True)
    assert aside is not None
    assert (Path(aside) / "cluster" / "PG_VERSION").exists()
    assert home_of(closed) == home
    assert not home.exists()
    # Data of a release that wrote no note stays.
    filled(home)
    assert cluster_of(closed).settle(is_first=False) is None
    assert home.exists()
