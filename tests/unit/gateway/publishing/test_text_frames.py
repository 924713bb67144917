"""Frames are made once for all subscribers, as the library makes them for one."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from gateway.publishing.text_frames import text_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_text_frame_is_what_the_library_makes(size: int) -> None:
    assert text_frame(b"x" * size) == Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)
