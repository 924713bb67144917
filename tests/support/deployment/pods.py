"""Pods of the manifests in k8s/, and their files on this machine."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.deployment.manifests import Manifest, kind

_EMPTY_MODE = 0o2777


@dataclass
class Pod:
    """One pod: `ready` as its probes say, `leaving` once it is told to go, `ended` with exit code 0.

    Who starts its container again, or says that it leaves, holds `changing`.
    """

    number: int
    name: str
    owner: str
    template: Manifest
    container: str = ""
    address: str = ""
    restarts: int = 0
    started: bool = False
    ready: bool = False
    leaving: bool = False
    ended: bool = False
    failures: dict[str, int] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)
    changing: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def leave(self) -> None:
        """Say that the pod leaves, after a start of its container that is under way."""
        with self.changing:
            self.leaving = True

    @property
    def spec(self) -> dict[str, Any]:
        """The specification of the pod."""
        found: dict[str, Any] = self.template["spec"]
        return found

    @property
    def main(self) -> dict[str, Any]:
        """The specification of its only container."""
        (found,) = self.spec["containers"]
        return dict(found)

    def port(self, name: str | int) -> int:
        """Return the number of a port that may be named."""
        if isinstance(name, int):
            return name
        return next(int(port["containerPort"]) for port in self.main["ports"] if port["name"] == name)


class Volumes:
    """The files of pods: folders of this machine in place of Secrets, ConfigMaps, scratch and claims."""

    def __init__(self, manifests: list[Manifest], folder: Path) -> None:
        self._secrets = kind(manifests, "Secret")
        self._maps = kind(manifests, "ConfigMap")
        self._folder = folder

    def mounts(self, pod: Pod, workload: Manifest) -> Iterator[tuple[Path, str, bool]]:
        """Yield where each mount of the pod comes from, where it goes, and whether it is read-only."""
        volumes = {found["name"]: found for found in pod.spec.get("volumes", [])}
        claims = {found["metadata"]["name"] for found in workload["spec"].get("volumeClaimTemplates", [])}
        made: dict[str, Path] = {}
        for mount in pod.main.get("volumeMounts", []):
            name = mount["name"]
            if name not in made:
                made[name] = self._claim(pod, name) if name in claims else self._make(pod, volumes[name])
            source = made[name] / mount.get("subPath", "")
            if not source.exists():
                _make_folder(source, pod)
            yield source, mount["mountPath"], mount.get("readOnly", False)

    def change(self, secrets: Mapping[str, Manifest], pods: Iterable[Pod]) -> None:
        """Replace Secrets, and the files that pods have of them."""
        self._secrets = {**self._secrets, **secrets}
        for pod in pods:
            for volume in pod.spec.get("volumes", []):
                if volume.get("secret", {}).get("secretName") in secrets:
                    self._fill(pod, volume)

    def _claim(self, pod: Pod, name: str) -> Path:
        folder = self._folder / "claims" / f"{name}-{pod.name}"
        if not folder.exists():
            _make_folder(folder, pod)
        return folder

    def _make(self, pod: Pod, volume: Manifest) -> Path:
        # A container that is started again finds what its predecessor left.
        folder = self._place(pod, volume)
        if not folder.exists():
            _make_folder(folder, pod)
            self._fill(pod, volume)
        return folder

    def _fill(self, pod: Pod, volume: Manifest) -> None:
        for name, (content, mode) in self._files(volume).items():
            file = self._place(pod, volume) / name
            file.write_bytes(content)
            file.chmod(mode)
            os.chown(file, 0, _group(pod))

    def _place(self, pod: Pod, volume: Manifest) -> Path:
        return self._folder / str(pod.number) / str(volume["name"])

    def _files(self, volume: Mapping[str, Any]) -> dict[str, tuple[bytes, int]]:
        if "emptyDir" in volume:
            return {}
        if "configMap" in volume:
            source = volume["configMap"]
            found = {name: text.encode() for name, text in self._maps[source["name"]]["data"].items()}
        else:
            source = volume["secret"]
            data = self._secrets[source["secretName"]]["data"]
            found = {name: base64.b64decode(text) for name, text in data.items()}
        paths = {item["key"]: item["path"] for item in source.get("items", [])} or {
            name: name for name in found
        }
        return {path: (found[key], source.get("defaultMode", 0o644)) for key, path in paths.items()}


def _group(pod: Pod) -> int:
    return int(pod.spec["securityContext"]["fsGroup"])


def _make_folder(folder: Path, pod: Pod) -> None:
    folder.mkdir(parents=True)
    os.chown(folder, 0, _group(pod))
    folder.chmod(_EMPTY_MODE)
