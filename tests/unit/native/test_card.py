from __future__ import annotations

from pathlib import Path

from native import card
from native.directories import RunDirectory
from native.ports import Ports
from native.stack import Blueprint, Stack
from native.supervisor import Supervisor


def test_the_card_names_addresses_key_and_what_to_try(tmp_path: Path) -> None:
    directory = RunDirectory.at(tmp_path / "with space")
    blueprint = Blueprint(directory, Ports())
    stack = Stack(blueprint, Supervisor(blueprint.stages()))
    text = card.text(stack)
    for expected in (
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8080/docs",
        "http://127.0.0.1:8080/console/status",
        "http://127.0.0.1:8025",
        "http://127.0.0.1:9090",
        stack.api_key,
    ):
        assert expected in text
    assert f"cat '{directory.api_key}'" in text
    assert "make demo" in text
    refused = card.text(stack, key_problem="the gateway refuses it with HTTP 401: make keys-reset")
    assert "HTTP 401: make keys-reset" in refused
