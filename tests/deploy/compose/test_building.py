"""What a stack in containers needs first, each in a test of its own: on a new machine it takes minutes."""

from __future__ import annotations

import json

import pytest

from support.deployment import stand_ins
from support.deployment.engine import Engine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(480)]


def test_an_engine_has_the_public_images(engine: Engine) -> None:
    if not engine.stand_ins:
        pytest.skip("it pulls them when they are needed")
    found = json.loads(engine.docker("image", "inspect", *stand_ins.STAGES))
    assert {name for image in found for name in image["RepoTags"]} >= stand_ins.STAGES.keys()


def test_the_images_of_this_checkout_are_built_and_run_as_nobody_special(
    engine: Engine, images: dict[str, str]
) -> None:
    found = json.loads(engine.docker("image", "inspect", *images.values()))
    assert [image["Config"]["User"] for image in found] == ["65532:65532"] * len(images)
