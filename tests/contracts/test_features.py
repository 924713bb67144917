"""The gateway's features are found by their folders: each has the same files, and the kernels know none."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp
import pytest

import gateway

FOLDER = Path(gateway.__file__).parent
# What features are built on, and what each may import of the gateway.
KERNELS = {"http": {"errors"}, "acceptance": {"errors", "http"}, "publishing": {"errors", "http"}}
FEATURES = sorted(
    file.parent.name for file in FOLDER.glob("*/__init__.py") if file.parent.name not in KERNELS
)
# A socket has a session instead.
WITHOUT_SERVICE = {"realtime"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("gateway", cache_dir=None)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_declares_its_routes_and_inputs_and_has_a_service(feature: str) -> None:
    names = {file.stem for file in (FOLDER / feature).glob("*.py")}
    assert {"routes", "inputs"} <= names
    has_service = any(name == "service" or name.endswith("_service") for name in names)
    assert has_service is (feature not in WITHOUT_SERVICE)


@pytest.mark.parametrize("feature", [feature for feature in FEATURES if feature not in WITHOUT_SERVICE])
def test_a_service_is_in_a_file_that_is_named_so(feature: str) -> None:
    services = {
        f"{file.stem}: {node.name}"
        for file in (FOLDER / feature).glob("*.py")
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Service")
        if file.stem != "service" and not file.stem.endswith("_service")
    }
    assert services == set()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_knows_no_feature_neither_directly_nor_over_others(
    graph: grimp.ImportGraph, kernel: str
) -> None:
    known = graph.find_upstream_modules(f"gateway.{kernel}", as_package=True)
    parts = {name.split(".")[1] for name in known if name.startswith("gateway.")}
    assert parts - {kernel} <= KERNELS[kernel]


@pytest.mark.parametrize("feature", FEATURES)
def test_the_application_serves_the_routes_of_a_feature(graph: grimp.ImportGraph, feature: str) -> None:
    assert graph.direct_import_exists(importer="gateway.app", imported=f"gateway.{feature}.routes")
