"""Contexts for operations under test."""

from __future__ import annotations

import pytest

from support.operation_world import OperationWorld


@pytest.fixture
def world() -> OperationWorld:
    return OperationWorld()
