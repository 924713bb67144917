"""Images with the code of the release before, for tests of roll-backs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support import release_before
from support.deployment.engine import Engine

# How the modules of an image say whose code they are.
WHERE = "import chassis; print(chassis.__file__)"
FOLDER = "/opt/previous/"
_RECIPE = """
FROM {image}
COPY services /opt/previous/services
COPY docs/runbooks /opt/previous/docs/runbooks
ENV PYTHONPATH="/opt/previous/services/chassis/src:/opt/previous/services/contracts/src:\
/opt/previous/services/gateway/src:/opt/previous/services/stock-data/src:\
/opt/previous/services/email/src:/opt/previous/services/batch-processor/src"
"""


@contextmanager
def built(engine: Engine, images: Sequence[str], folder: Path) -> Iterator[list[str]]:
    """Yield the names of images like `images` that run the release before; they are removed afterwards."""
    names = [f"{image}-previous" for image in images]
    with release_before.checkout(folder / "checkout") as checkout:
        # Its packages are those of now. The build then takes a second, and the code is really the older one.
        recipe = folder / "Dockerfile"
        for image, name in zip(images, names, strict=True):
            recipe.write_text(_RECIPE.format(image=image))
            engine.docker("build", "--quiet", "--file", str(recipe), "--tag", name, str(checkout))
        yield names
    engine.docker("rmi", "--force", *names)
