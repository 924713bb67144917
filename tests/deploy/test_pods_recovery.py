"""The pods of the local overlay under load: secrets rotate, releases change, all is lost and restored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deployment import cluster, previous_images
from support.deployment.accepted import accept, ended, ends, letter
from support.deployment.cluster import ClusterLoad, Pods
from support.deployment.composed import SERVICES, until
from support.deployment.engine import Engine
from support.deployment.rotating import rotate_all
from upkeep import backups
from upkeep.backups import BackupOptions

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def pods(engine: Engine, images: dict[str, str]) -> Iterator[Pods]:
    with cluster.running(engine, images) as found:
        yield found


def check_delivered(pods: Pods, load: ClusterLoad) -> None:
    """Assert that all accepted work was done, and that each mail arrived."""
    assert len(load.paths) > 40
    with pods.api() as api:
        assert ends(api, load.paths) == {"delivered", "completed"}
    assert set(load.subjects) <= set(pods.subjects())


def test_every_secret_of_pods_is_rotated_under_load_and_no_mail_is_lost(pods: Pods) -> None:
    with pods.upkeep() as upkeep:
        load = rotate_all(upkeep, ClusterLoad(pods))
    check_delivered(pods, load)


def test_the_release_before_takes_over_the_pods_under_load_and_hands_back(
    pods: Pods, engine: Engine, images: dict[str, str], tmp_path: Path
) -> None:
    with previous_images.built(engine, list(images.values()), tmp_path) as before, ClusterLoad(pods) as load:
        pods.node.images = dict(zip(images, before, strict=True))
        codes = [code for service in SERVICES for code in pods.node.roll(service)]
        sources = pods.sources()
        pods.node.images = images
        # Those that receive before the one that sends, as the guide says.
        codes += [code for service in reversed(SERVICES) for code in pods.node.roll(service)]
    assert {source.startswith(previous_images.FOLDER) for source in sources} == {True}
    assert {source.startswith(previous_images.FOLDER) for source in pods.sources()} == {False}
    assert set(codes) == {0}
    assert load.failures == []
    check_delivered(pods, load)


def test_a_backup_made_under_load_restores_all_that_was_accepted_into_a_new_cluster(
    engine: Engine, images: dict[str, str], tmp_path: Path
) -> None:
    with cluster.running(engine, images) as lost, ClusterLoad(lost) as load, lost.upkeep() as upkeep:
        until(lambda: True if len(load.paths) > 20 else None)
        before = list(load.paths)
        file = backups.back_up(upkeep, BackupOptions(tmp_path, passphrase=None, keep=2), say=print)
        # Work was accepted all the time.
        assert len(load.paths) > len(before) + 20
        assert load.failures == []
    with cluster.running(engine, images) as empty:
        with empty.api() as api:
            replaced = accept(api, "/v1/emails", letter("of the new cluster"))
            assert ended(api, replaced)["status"] == "delivered"
        key = empty.key
        with empty.upkeep() as upkeep:
            backups.restore(upkeep, file, passphrase=None, say=print)
        assert empty.key != key
        with empty.api() as api:
            assert ends(api, before) == {"delivered", "completed"}
            assert api.get(replaced).status_code == 404
