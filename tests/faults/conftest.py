"""One rig for all tests of this folder; every test leaves it working."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from faults import rig as rigs
from faults.rig import Rig
from faults.selection import IS_LONG


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; runs with FAULTS_LONG=1 only")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skipif(not IS_LONG, reason="long: set FAULTS_LONG=1"))


@pytest.fixture(scope="package")
async def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rigs.running(tmp_path_factory.mktemp("faults")) as running:
        await running.recovered()
        yield running


@pytest.fixture
async def rig(shared_rig: Rig) -> AsyncIterator[Rig]:
    """Yield the running product; after the test, end all faults and wait until it has recovered."""
    try:
        yield shared_rig
    finally:
        await shared_rig.calm()
        await shared_rig.recovered()
        await shared_rig.forget_parked()
