"""Grafana's own typed model of a dashboard, where Grafana is not available, knows every field of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import build

# The model leaves what an annotation asks its data source to the data source.
_OF_DATASOURCES = {"titleFormat", "textFormat", "step"}


@pytest.mark.parametrize("file", sorted(build.FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_every_field_is_one_that_grafana_knows(file: Path) -> None:
    ours = json.loads(file.read_text(encoding="utf-8"))
    assert list(forgotten(ours, understood(ours))) == []


def test_a_field_that_grafana_does_not_know_is_found() -> None:
    ours = {
        "title": "x",
        "panels": [{"type": "timeseries", "id": 1, "fieldConfig": {"defaults": {"unti": "s"}}}],
    }
    assert list(forgotten(ours, understood(ours))) == [".panels[0].fieldConfig.defaults.unti"]


def understood(dashboard: Any) -> Any:
    """Return `dashboard` as Grafana's model writes it after reading it."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def forgotten(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield the places of `ours` that are not, or not the same, in `theirs`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in ours.keys() - _OF_DATASOURCES:
            if name in theirs:
                yield from forgotten(ours[name], theirs[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from forgotten(*pair, f"{path}[{index}]")
    elif ours != theirs:
        yield path
