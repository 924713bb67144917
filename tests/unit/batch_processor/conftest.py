"""Contexts for operations under test."""

from __future__ import annotations

import pytest

from support.operation_world import World


@pytest.fixture
def world() -> World:
    return World()
