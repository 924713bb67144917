"""The data of publications, as sockets and event streams send them."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from contracts.emails import EmailStatus
from contracts.message import Moment
from contracts.stocks import LiveBar, Quote

FeedState = Literal["live", "stale", "restarted"]


class QuoteNews(Quote):
    """A publication of the quotes of a symbol. `state` is that of the feed when the quote is sent.

    `stale`: no quote has been pushed for some seconds; `restarted`: the first quote of a new epoch.
    """

    state: FeedState


class BarNews(LiveBar):
    """A publication of the bars of a symbol. `state` is that of the feed when the bar is sent.

    `stale`: no bar has been pushed or closed for some seconds; `restarted`: the first bar of a new epoch.
    """

    state: FeedState


class MessageNews(BaseModel):
    """A publication of a chat room: what was posted and by whom.

    The offset and the time of the message are those of the publication.
    """

    model_config = ConfigDict(extra="allow")
    text: str
    user_id: str
    user: str


class EmailNews(BaseModel):
    """A publication on the channel of a mail: the status that summarizes its recipients."""

    id: UUID
    status: EmailStatus
    at: Moment
