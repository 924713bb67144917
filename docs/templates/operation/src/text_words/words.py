"""`text.words`: counts the words of a text."""

from __future__ import annotations

from collections import Counter

from pydantic import BaseModel, ConfigDict, Field

from batch_processor.authoring import Context, Json, operation


class Text(BaseModel):
    """The payload of an item."""

    # An unknown field is a mistake of the caller: it is refused before anything runs.
    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=100_000, examples=["to be or not to be"])
    most: int = Field(default=3, ge=0, le=100, description="how many of the most frequent words are returned")


@operation("text.words", timeout_s=5)
async def words(payload: Text, _: Context) -> Json:
    """Count the words of a text and name the most frequent ones."""
    found = Counter(payload.text.lower().split())
    return {"words": found.total(), "frequent": dict(found.most_common(payload.most))}
