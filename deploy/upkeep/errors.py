"""What can stop a verb; the text says what happened, to which thing, and what to do."""

from __future__ import annotations


class UpkeepError(Exception):
    """A verb cannot do what was asked; the text is shown to the person as it is."""
