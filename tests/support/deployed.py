"""A stack that already runs, wherever it was deployed: `make e2e URL=… KEY=… MAILBOX=…`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest


@dataclass(frozen=True)
class Mailbox:
    """The mailbox in which the mails of the stack arrive; its API is Mailpit's."""

    url: str


@dataclass(frozen=True)
class Deployed:
    """The parts of a `Stack` that can be reached from outside; a test that wants more is skipped."""

    url: str
    api_key: str
    mailbox_url: str

    @property
    def mailbox(self) -> Mailbox:
        """The mailbox, where it can be reached."""
        if not self.mailbox_url:
            pytest.skip("TICKWIRE_MAILBOX is not set")
        return Mailbox(self.mailbox_url)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        pytest.skip(f"only a stack of the test's own has {name!r}")


def found(environ: Mapping[str, str]) -> Deployed | None:
    """Return the stack that the environment names, if it names one."""
    url = environ.get("TICKWIRE_URL")
    if not url:
        return None
    return Deployed(url.rstrip("/"), environ["TICKWIRE_KEY"], environ.get("TICKWIRE_MAILBOX", ""))


async def require_refusals(mailbox: Any) -> None:
    """Skip where the mailbox is not the development one, which refuses some addresses."""
    if (await mailbox.get("/api/v1/info")).json().get("Version") != "tickwire-mailbox":
        pytest.skip("only the development mailbox refuses addresses")
