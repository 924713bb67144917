"""A Docker engine for the deployment tests, and the images of this checkout on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from uuid import uuid4

import pytest

from support.deployment import composed, stand_ins
from support.deployment.engine import Engine, NoEngine, running


@pytest.fixture(scope="package")
def engine() -> Iterator[Engine]:
    """Yield a Docker engine with the public images; without one skip, or fail (`TICKWIRE_DOCKER`)."""
    if os.environ.get("TICKWIRE_DOCKER") == "off":
        pytest.skip("TICKWIRE_DOCKER=off")
    with ExitStack() as held:
        try:
            found = held.enter_context(running())
            if found.stand_ins:
                stand_ins.build(found)
        except NoEngine as reason:
            if os.environ.get("TICKWIRE_DOCKER") == "required":
                raise
            pytest.skip(f"no Docker: {reason}")
        yield found


@pytest.fixture(scope="package")
def images(engine: Engine) -> Iterator[dict[str, str]]:
    """Yield the names of the images of this checkout by those in the manifests."""
    tag = f"test-{uuid4().hex[:8]}"
    variables = {"TICKWIRE_TAG": tag, "COMPOSE_FILE": str(composed.REPOSITORY / "compose.yaml")}
    own = replace(engine, environment={**engine.environment, **variables})
    own.docker("compose", "build", *composed.SERVICES, timeout_s=400)
    found = {
        f"localhost/tickwire/{service}:0.1.0": f"localhost/tickwire/{service}:{tag}"
        for service in composed.SERVICES
    }
    yield found
    engine.docker("rmi", "--force", *found.values())
