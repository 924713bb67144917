"""An error can be reported whatever input it quotes."""

from __future__ import annotations

from chassis.errors import InvalidInput
from contracts.message import FieldError


def test_an_error_that_quotes_half_a_surrogate_pair_can_be_sent() -> None:
    quoted = "no field \ud800 \0"
    error = InvalidInput(quoted, errors=[FieldError(pointer=f"/{quoted}", detail=quoted)])
    sent = error.failure().model_dump_json()
    assert sent.count("no field \\\\ud800 \ufffd") == 3
