"""The card that the native run prints."""

from __future__ import annotations

from pathlib import Path

from native import card
from native.directories import RunDirectory
from native.ports import Ports
from native.stack import Blueprint, Stack
from native.supervisor import Supervisor


def arguments(folder: Path, *without: str) -> str:
    blueprint = Blueprint(RunDirectory.at(folder), Ports(), without=without)
    return "\n".join(card.arguments(Stack(blueprint, Supervisor(blueprint.stages()))))


def test_the_card_of_the_native_run_gets_its_addresses_and_commands(tmp_path: Path) -> None:
    said = arguments(tmp_path / "with space")
    for expected in (
        "--gateway\nhttp://127.0.0.1:8080",
        f"--key-file\n{tmp_path}/with space/api-key",
        "--page=mailbox=http://127.0.0.1:8025",
        "--page=Prometheus=http://127.0.0.1:9090",
        "--senders=\n",
        "--hint=the tour=make demo",
        f"tail -f '{tmp_path}/with space/logs/gateway.log'",
    ):
        assert expected in said
    assert "Prometheus=\n" in arguments(tmp_path / "small", "prometheus")
