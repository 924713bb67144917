"""Images of the services: two builds are equal, and a signature covers one image and needs no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from support.deployment.composed import REPOSITORY
from support.deployment.engine import Engine
from support.keys import release_key
from upkeep import images, signing

pytestmark = [pytest.mark.docker, pytest.mark.timeout(480)]

SERVICE = "stock-data"


@pytest.fixture(scope="module")
def builds(engine: Engine) -> Iterator[list[str]]:
    """Yield the names of two images of one service: built as usual, and with nothing kept from before."""
    names = [f"localhost/tickwire/{SERVICE}:{uuid4().hex[:8]}" for _ in range(2)]
    try:
        for name, how in zip(names, ((), ("--no-cache",)), strict=True):
            variables = {
                "TICKWIRE_TAG": name.rpartition(":")[2],
                "COMPOSE_FILE": str(REPOSITORY / "compose.yaml"),
            }
            own = replace(engine, environment={**engine.environment, **variables})
            own.docker("compose", "build", *how, SERVICE, timeout_s=400)
        yield names
    finally:
        subprocess.run(
            ["docker", "rmi", "--force", *names], env=engine.environment, capture_output=True, check=False
        )


@pytest.fixture
def on_the_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Direct the programs that the test calls to the engine of these tests."""
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)


def test_two_builds_of_a_commit_are_equal(engine: Engine, builds: list[str]) -> None:
    first, second = (json.loads(engine.docker("inspect", name))[0] for name in builds)
    assert first["RootFS"]["Layers"] == second["RootFS"]["Layers"]
    assert first["Config"] == second["Config"]
    # Engines since 23 take the time of the record from the build as well: then it is one and the same image.
    if int(engine.docker("version", "--format", "{{.Server.Version}}").split(".")[0]) >= 23:
        assert first["Id"] == second["Id"]


def test_compiled_files_are_used_as_they_are(engine: Engine, builds: list[str]) -> None:
    # With times of their sources in them they would be made anew at each start, and kept nowhere.
    program = (
        "import importlib.util, pathlib, stock_data.app as app\n"
        "head = pathlib.Path(importlib.util.cache_from_source(app.__file__)).read_bytes()\n"
        "print(head[4:8].hex())"
    )
    entry = ("--rm", "--network", "none", "--entrypoint", "/opt/tickwire/bin/python")
    assert engine.docker("run", *entry, builds[0], "-c", program).strip() == "01000000"


def test_the_bill_of_materials_names_what_the_image_holds(builds: list[str], on_the_engine: None) -> None:
    bill = images.found(builds[0]).bill
    named = {component["purl"].partition("@")[0] for component in bill["components"]}
    assert {"pkg:pypi/tickwire-stock-data", "pkg:pypi/asyncpg", "pkg:deb/debian/libc6"} <= named
    # What the build alone needs is not in the image.
    assert not any(package.endswith("/binutils") for package in named)


def test_a_signature_covers_one_image_and_is_verified_without_a_network(
    engine: Engine, builds: list[str], tmp_path: Path, on_the_engine: None
) -> None:
    private, public = release_key(tmp_path)
    options = ("--folder", str(tmp_path / "signatures"), builds[0])
    assert signing.main(["sign", "--key", str(private), *options]) == 0
    # A network namespace of its own has not even a loopback; the engine's socket is a file.
    apart = ("unshare", "--net") if os.geteuid() == 0 else ()
    verify = (sys.executable, "-m", "upkeep.signing", "verify", "--key", str(public), *options)
    environment = {**engine.environment, "PYTHONPATH": "deploy"}
    done = subprocess.run((*apart, *verify), cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{builds[0]}: signed by" in done.stdout
    # Somebody puts a layer on top, under the same name.
    container = engine.docker("create", builds[0]).strip()
    engine.docker("commit", "--message", "changed", container, builds[0])
    engine.docker("rm", container)
    assert signing.main(["verify", "--key", str(public), *options]) == 1
