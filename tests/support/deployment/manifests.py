"""Kubernetes manifests as kustomize builds them, and the checks on them; no cluster is needed."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import yaml

from support.deployment.composed import REPOSITORY

Manifest: TypeAlias = dict[str, Any]

K8S = REPOSITORY / "k8s"
# `backup` and `recovery` change the database cluster of an operator, which the base has not; `http-requests`
# only makes sense where the network is closed, and `checks` is for k8s/checks. They are tried on overlays.
_OF_OVERLAYS = {"backup", "checks", "recovery", "http-requests"}
COMPONENTS = tuple(sorted({path.name for path in (K8S / "components").iterdir()} - _OF_OVERLAYS))
SETS = [found for n in range(len(COMPONENTS) + 1) for found in itertools.combinations(COMPONENTS, n)]
KUBERNETES = "1.37"
_SCHEMAS = Path(__file__).with_name("schemas")


def tool(name: str) -> str:
    """Return the path of a program that came with the development packages."""
    return str(Path(sys.executable).with_name(name))


def copy(folder: Path) -> Path:
    """Return a copy of k8s/ and of what it uses of deploy/ in `folder`, the local overlay's secrets made."""
    target = folder / "k8s"
    ignored = shutil.ignore_patterns("secrets", "__pycache__")
    shutil.copytree(K8S, target, ignore=ignored)
    shutil.copytree(REPOSITORY / "deploy", folder / "deploy", ignore=ignored)
    for overlay in ("local", "external"):
        command = [REPOSITORY / "deploy/containers/make-secrets", target / "overlays" / overlay / "secrets"]
        subprocess.run(command, check=True)
    return target


def build(folder: Path) -> list[Manifest]:
    """Return the objects that `kubectl apply -k` sends. Raise `AssertionError` with kustomize's error."""
    # It ends before its garbage could fill the memory.
    environment = {**os.environ, "GOGC": "off"}
    done = subprocess.run(
        [tool("kubectl"), "kustomize", folder], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return [json.loads(_as_json(text)) for text in done.stdout.split("\n---\n")]


@cache
def _as_json(document: str) -> str:
    """Return a YAML document as JSON, which is read faster: most are the same in every combination."""
    return json.dumps(yaml.load(document, yaml.CSafeLoader))


def combine(k8s: Path, components: tuple[str, ...], *, on: str = "base") -> list[Manifest]:
    """Return the base, or an overlay, with these components on top."""
    folder = k8s / "tested" / "-".join((Path(on).name, *components))
    folder.mkdir(parents=True, exist_ok=True)
    added = [f"../../components/{name}" for name in components]
    wanted = {"namespace": "tickwire", "resources": [f"../../{on}"], "components": added}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(wanted))
    return build(folder)


def check(manifest: Manifest) -> None:
    """Hold one manifest to the schema of its kind, unknown fields refused."""
    _check(json.dumps(manifest))


@cache
def _check(text: str) -> None:
    manifest = json.loads(text)
    own = _SCHEMAS / f"{manifest['kind']}.json"
    if own.exists():
        jsonschema.validate(manifest, json.loads(own.read_text()), jsonschema.Draft202012Validator)
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def kind(manifests: list[Manifest], wanted: str) -> dict[str, Manifest]:
    """Return the manifests of a kind by name."""
    return {found["metadata"]["name"]: found for found in manifests if found["kind"] == wanted}


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield every pod template, with the name of what makes pods of it."""
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]


def environment(manifests: list[Manifest], service: str) -> dict[str, str]:
    """Return the environment that the container of `service` gets, its ConfigMaps read."""
    return variables(
        manifests, kind(manifests, "Deployment")[service]["spec"]["template"]["spec"]["containers"][0]
    )


def variables(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """Return the environment of one container, the ConfigMaps that it names read."""
    maps = kind(manifests, "ConfigMap")
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]["data"]
    return found | {entry["name"]: entry["value"] for entry in container.get("env", [])}
