"""Publications: the content of channels, encoded once for all subscribers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from contracts.stocks import is_later
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.text_frames import text_frame


class Publication:
    """Data published on a channel at a position; `time_ms` is Unix time in milliseconds.

    `is_state` marks a change of the channel's state (its feed stopped): it has the position of the last
    publication, and is sent although that position was sent before. When publications are conflated, one
    replaces another with the same `replaces`; `skipped` counts those that this one has replaced. `info` names
    who has published it, its `user` and `client`.
    """

    __slots__ = (
        *("_event", "_frame", "_head", "channel", "data", "info", "is_state", "position"),
        *("replaces", "skipped", "time_ms"),
    )

    def __init__(
        self,
        channel: str,
        position: ChannelPosition,
        data: Mapping[str, Any],
        *,
        time_ms: int | None = None,
        is_state: bool = False,
        replaces: str = "",
        skipped: int = 0,
        info: Mapping[str, str] | None = None,
    ) -> None:
        self.channel = channel
        self.position = position
        self.data = data
        self.time_ms = int(time.time() * 1000) if time_ms is None else time_ms
        self.is_state = is_state
        self.replaces = replaces
        self.skipped = skipped
        self.info = info
        self._head: bytes | None = None
        self._frame: bytes | None = None
        self._event: bytes | None = None

    def document(self) -> dict[str, Any]:
        """Return the publication as it appears in replies."""
        document = {"data": self.data, "offset": self.position.offset, "time": self.time_ms}
        return document if self.info is None else {**document, "info": self.info}

    def follows(self, other: Publication) -> bool:
        """Return whether this is newer than another one of the channel; at its position, a state is."""
        if self.position == other.position:
            return self.is_state
        epoch, offset = other.position
        return is_later(*self.position, than_epoch=epoch, than_offset=offset)

    def after(self, skipped: int) -> Publication:
        """Return the same publication after `skipped` others that it has replaced."""
        return Publication(
            self.channel,
            self.position,
            self.data,
            time_ms=self.time_ms,
            is_state=self.is_state,
            replaces=self.replaces,
            skipped=skipped,
            info=self.info,
        )

    def frame(self) -> bytes:
        """Return the push as a frame; every subscriber gets the same bytes."""
        if self._frame is None:
            self._frame = self._framed(self.skipped)
        return self._frame

    def frame_after(self, skipped: int) -> bytes:
        """Return the push as a frame that states how many publications it replaced."""
        return self.frame() if skipped == self.skipped else self._framed(skipped)

    def event(self, name: str) -> bytes:
        """Return the publication as a server-sent event with the `name` of its kind of channel.

        Every reader gets the same bytes.
        """
        if self._event is None:
            data = orjson.dumps(self.data, option=orjson.OPT_UTC_Z)
            self._event = b"event: %b\nid: %b\ndata: %b\n\n" % (
                name.encode(), event_id(self.position).encode(), data
            )  # fmt: skip
        return self._event

    def _framed(self, skipped: int) -> bytes:
        tags = b',"tags":{"skipped":"%d"}' % skipped if skipped else b""
        return text_frame(self._encoded() + tags + b"}}}")

    def _encoded(self) -> bytes:
        # Without the closing braces, so that a subscriber's own tags can follow.
        if self._head is None:
            document = {**self.document(), "epoch": self.position.epoch}
            push = {"push": {"channel": self.channel, "pub": document}}
            self._head = orjson.dumps(push, option=orjson.OPT_UTC_Z)[:-3]
        return self._head


def event_id(position: ChannelPosition) -> str:
    """Return the id of a server-sent event at `position`."""
    return f"{position.epoch}:{position.offset}"
