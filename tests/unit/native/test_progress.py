"""The progress of a start, with and without a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from native.progress import Progress
from native.supervisor import ProgramEvent


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


def test_without_a_terminal_each_event_is_a_plain_line(output: io.StringIO) -> None:
    progress = Progress(Console(file=output))
    with progress.waiting():
        progress(ProgramEvent("postgres", "starting", "TCP"))
        progress(ProgramEvent("postgres", "ready", "1.2 s"))
    progress(ProgramEvent("email", "exited", "signal SIGKILL, again in 0.5 s"))
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert lines == [
        ["ready", "postgres", "1.2", "s"],
        ["ended", "email", "signal", "SIGKILL,", "again", "in", "0.5", "s"],
    ]


def test_on_a_terminal_the_server_that_is_waited_for_is_named(output: io.StringIO) -> None:
    progress = Progress(Console(file=output, force_terminal=True))
    with progress.waiting():
        progress(ProgramEvent("postgres", "starting", "the databases"))
        progress(ProgramEvent("rabbitmq", "starting", "AMQP"))
        progress(ProgramEvent("postgres", "ready", "1.2 s"))
    progress.say("done")
    assert "waiting for rabbitmq (AMQP)" in output.getvalue()
