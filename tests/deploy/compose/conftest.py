"""One stack of compose.yaml with all its profiles, for all tests of this folder.

They run in the order of their files: first what needs a stack that nothing has happened to, and last what
stops it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support.deployment import composed
from support.deployment.engine import Engine
from upkeep.compose_stack import ComposeStack


@pytest.fixture(scope="package")
def stack(engine: Engine) -> Iterator[composed.Composed]:
    # Not in pytest's folders: other runs clear those away, and a container that restarts needs its secrets.
    with (
        TemporaryDirectory(prefix="tickwire-compose-") as folder,
        composed.start(engine, Path(folder)) as running_stack,
    ):
        yield running_stack


@pytest.fixture
def upkeep(stack: composed.Composed) -> ComposeStack:
    return ComposeStack(composed.REPOSITORY, stack.secrets, stack.engine.environment)
