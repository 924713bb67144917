"""Switching guards off, one at a time, in the process of a service: the harness must notice each of them.

What is patched is imported in that process only, and before anything of it begins.
"""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

_ENDLESS = 1 << 40


def switch_off(name: str, *, program: str) -> None:
    """Switch the guard `name` off if `program` (of `python -m`) is the one that has it."""
    where, patch = PATCHES[name]
    if program == where:
        patch()


def _put(home: str, **values: Any) -> None:
    """Replace attributes of a module, or of a class of it."""
    module, _, owner = home.partition(":")
    found = getattr(import_module(module), owner) if owner else import_module(module)
    for name, value in values.items():
        setattr(found, name, value)


def _head_bytes() -> None:
    _put("chassis.http1.reader", HEAD_BYTES=_ENDLESS, REQUEST_LINE_BYTES=_ENDLESS)
    _put("chassis.http1.connection", UNREAD_BYTES=_ENDLESS)
    _put("chassis.http1.admission", WAITING_BYTES=_ENDLESS)


def _connections_per_address() -> None:
    take = import_module("chassis.http1.admission").Admission.take

    def take_anything(self: Any, *arguments: Any) -> Any:
        # So few places that a flood takes those without a key even where it gets little of a processor.
        self.limits = replace(self.limits, per_address=_ENDLESS, most=800)
        return take(self, *arguments)

    _put("chassis.http1.admission:Admission", take=take_anything)
    _giving_way()


def _giving_way() -> None:
    _put("chassis.http1.connection:HttpConnection", give_way=lambda _: False)


def _frame_budget() -> None:
    _put("gateway.realtime.frames:FrameBudget", allows=lambda *_: True)


def _bytes_that_wait_for_sockets() -> None:
    # Each of them still has its own limit.
    _put("gateway.realtime.slow_clients:SlowClients", change=lambda *_: None)


def _room_for_answers() -> None:
    _put("gateway.http.shared_bytes:SharedBytes", take=lambda *_: True)
    _put(
        "gateway.http.sending",
        **dict.fromkeys(
            ("MOST_BYTES", "MOST_BYTES_OF_OWNER", "MOST_STREAMS", "MOST_STREAMS_OF_OWNER"), _ENDLESS
        ),
    )


def _flat_uploads() -> None:
    cutter: Any = import_module("gateway.batches.cutting").Cutter

    class Remembering(cutter):  # type: ignore[misc]  # known at run time only
        def __init__(self, *fields: Any, **more: Any) -> None:
            super().__init__(*fields, **more)
            self.known: list[Any] = []

        def feed(self, data: bytes) -> Any:
            # As if ids were compared here, for which each item has to be read and kept.
            self.known += map(json.loads, (self.rest + data).split(b"\n")[:-1])
            return super().feed(data)

    _put("gateway.batches.upload_service", Cutter=Remembering)


def _html_scanner() -> None:
    class Reader(html.parser.HTMLParser):
        def handle_data(self, data: str) -> None:
            parts.append(data)

    parts: list[str] = []

    def from_html(document: str) -> str:
        parts.clear()
        reader = Reader()
        reader.feed(document)
        # What was begun and never ended is read again from each of its beginnings.
        reader.close()
        return "".join(parts) + "\n"

    # Longer HTML is read elsewhere.
    _put("emailer.plain_text", from_html=from_html, LIGHT_CHARACTERS=_ENDLESS)


def _turns_of_writers() -> None:
    turns: Any = import_module("chassis.turns").OwnerTurns

    class TurnsOfAll(turns):  # type: ignore[misc]  # known at run time only
        # One line, as if all mails were of the same owner.
        def __init__(self, *, most: int, **more: Any) -> None:
            super().__init__(**{**more, "most": most, "of_owner": most})

        async def take(self, _: str) -> None:
            await super().take("everybody")

        def give_back(self, _: str) -> None:
            super().give_back("everybody")

    _put("emailer.writing.writer", OwnerTurns=TurnsOfAll)


def _relay_rules() -> None:
    outcomes = import_module("emailer.sending.outcomes")
    every = ("mail", "recipient", "data", "content")
    route = outcomes.Rule("whoever is told 530", every, re.compile("53[0458]"), "route", "login-refused")
    # The first is that of a mail that is taken.
    _put("emailer.sending.outcomes", RULES=outcomes.with_own([route]))
    # Even such a rule would pause the mails of its owner only, while those of others are accepted.
    _put("emailer.sending.breaker:RefusalBreaker", has_taken_of_others=lambda *_: False)


def _poison_items() -> None:
    def cause_of(error: BaseException) -> Any:
        # Also what ends the process, and what has no text.
        raise error

    _put("batch_processor.execution.chunks", cause_of=cause_of)
    # Without processes of their own, which end in the place of the service.
    resources = import_module("batch_processor.resources").Resources
    _put("batch_processor.app", Resources=partial(resources, isolated=False))


def _outbox_rows() -> None:
    # What has failed stays where it was, in front of all others.
    find = import_module("chassis.queries").Statements.__getitem__

    def find_another(self: Any, name: str) -> Any:
        return "SELECT $1::bigint[], $2::int" if name == "postpone" else find(self, name)

    _put("chassis.queries:Statements", __getitem__=find_another)


def _provider_elements() -> None:
    wrap = import_module("pydantic").WrapValidator
    _put("stock_data.providers.payloads", judged=lambda **_: wrap(lambda value, validate: validate(value)))


def _mailbox_messages() -> None:
    read: set[str] = set()
    received: Any = import_module("native.mailbox.messages").Received

    class Unread(received):  # type: ignore[misc]  # known at run time only
        @property
        def summary(self) -> Any:
            # The receiver reads a message before it keeps it; here the list is the first to do so.
            if self.id not in read:
                return read.add(self.id)
            return received.summary.func(self)

    _put("native.mailbox.reading", attempted=lambda function, _: function())
    _put("native.mailbox.receiver", Received=Unread)


def _questions_of_an_owner() -> None:
    _put("chassis.broker.rpc", MOST_SENT_OF_OWNER=_ENDLESS)


PATCHES: dict[str, tuple[str, Callable[[], None]]] = {
    "head bytes": ("gateway", _head_bytes),
    "connections per address": ("gateway", _connections_per_address),
    "giving way": ("gateway", _giving_way),
    "frame budget": ("gateway", _frame_budget),
    "bytes that wait for sockets": ("gateway", _bytes_that_wait_for_sockets),
    "room for answers": ("gateway", _room_for_answers),
    "flat uploads": ("gateway", _flat_uploads),
    "html scanner": ("emailer", _html_scanner),
    "turns of writers": ("emailer", _turns_of_writers),
    "relay rules": ("emailer", _relay_rules),
    "poison items": ("batch_processor", _poison_items),
    "outbox rows": ("gateway", _outbox_rows),
    "provider elements": ("stock_data", _provider_elements),
    "questions of an owner": ("gateway", _questions_of_an_owner),
    "mailbox messages": ("native.mailbox", _mailbox_messages),
}
