"""Events of a channel beside its publications: they have no position and cannot be recovered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import orjson

from gateway.publishing.text_frames import text_frame


@dataclass(frozen=True, slots=True)
class Moved:
    """A connection has joined the channel or left it; `frame` is the push, the same for every subscriber."""

    channel: str
    client: str
    user: str
    is_join: bool
    frame: bytes = field(init=False)

    def __post_init__(self) -> None:
        info = {"info": {"user": self.user, "client": self.client}}
        push = {"channel": self.channel, "join" if self.is_join else "leave": info}
        object.__setattr__(self, "frame", text_frame(orjson.dumps({"push": push})))


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """Only `members`, the ids of users, may listen to the channel from now on."""

    channel: str
    members: frozenset[str]


Signal: TypeAlias = Moved | MembersChanged
