"""What the commands do to the containers, with a stand-in for docker that notes its calls."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from upkeep import compose_stack
from upkeep.compose_stack import ComposeStack

DOCKER = """\
#!/bin/sh
shift 3
echo "$*" >>"$CALLS"
case "$*" in
    *gateway-2 | *exporter) ;;
    "ps "*) echo 0123abcd ;;
esac
"""


@pytest.mark.parametrize(("service", "restarted"), [("gateway", ["gateway"]), ("postgres-exporter", [])])
def test_a_service_whose_profile_is_off_is_not_started_by_a_restart(
    tmp_path: Path, service: str, restarted: list[str]
) -> None:
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    calls = tmp_path / "calls"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
    ComposeStack(tmp_path, tmp_path / "secrets", environment).restart(service)
    made = [line.split() for line in calls.read_text().splitlines()]
    assert [words[-1] for words in made if words[0] == "restart"] == restarted
    assert [words[-1] for words in made if words[0] == "up"] == restarted


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({}, "in-the-file"),
        ({"TICKWIRE_SECRETS": "in-the-environment"}, "in-the-environment"),
        ({"TICKWIRE_SECRETS": ""}, ".run/compose-secrets"),
    ],
)
def test_secrets_are_where_compose_has_them_also_by_the_file(
    tmp_path: Path, given: dict[str, str], folder: str
) -> None:
    (tmp_path / ".env").write_text("TICKWIRE_SECRETS=in-the-file\n")
    found = compose_stack.at(tmp_path, given)
    assert found.secrets == tmp_path / folder
    assert found.key_file == found.secrets.parent / "api-key"
