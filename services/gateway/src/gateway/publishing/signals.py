"""Events of a channel beside its publications: they have no position and cannot be recovered."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from gateway.publishing.text_frames import text_frame


@dataclass(frozen=True, slots=True)
class Moved:
    """A connection of `user` has joined the channel or left it."""

    channel: str
    client: str
    user: str
    is_join: bool

    def frame(self) -> bytes:
        """Return the push as a frame, the same for every subscriber."""
        info = {"info": {"user": self.user, "client": self.client}}
        push = {"channel": self.channel, "join" if self.is_join else "leave": info}
        return text_frame(orjson.dumps({"push": push}))


@dataclass(frozen=True, slots=True)
class MembersLeft:
    """The users with the ids `users` may not listen to the channel any more."""

    channel: str
    users: frozenset[str]


@dataclass(frozen=True, slots=True)
class FellBehind:
    """An owner's listeners of the channel cannot be served as fast as it publishes, and missed something."""

    channel: str


Signal = MembersLeft | FellBehind
