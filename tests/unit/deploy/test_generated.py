"""Generated files: those that are not what their generator writes are named before a commit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import generated
from containers import prometheus_rules
from rabbitmq import definitions

DEPLOY = Path(generated.__file__).parent


def test_all_generated_files_are_up_to_date() -> None:
    assert list(generated.outdated()) == []


def test_a_file_that_was_not_written_again_is_named_with_its_generator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = tmp_path / "rules.yaml"
    old.write_text(prometheus_rules.render() + "# by hand\n")
    monkeypatch.setattr(generated, "REPOSITORY", tmp_path)
    monkeypatch.setattr(prometheus_rules, "FILE", old)
    monkeypatch.setattr(definitions, "FILE", tmp_path / "missing.json")
    assert list(generated.outdated()) == [
        "rules.yaml is out of date: run PYTHONPATH=deploy .venv/bin/python -m containers.prometheus_rules",
        "missing.json is out of date: run PYTHONPATH=deploy .venv/bin/python -m rabbitmq.definitions",
    ]


def test_no_generator_is_left_out() -> None:
    named = re.compile(r'^"""Writes .*`(?:PYTHONPATH=deploy )?python -m ([\w.]+)`')
    services = generated.REPOSITORY / "services"
    texts = (path.read_text() for folder in (DEPLOY, services) for path in folder.rglob("*.py"))
    found = {match[1] for text in texts if (match := named.match(text))}
    assert found == set(generated.by_generator())
