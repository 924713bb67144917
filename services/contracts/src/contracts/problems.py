"""The catalogue of problem types: the meaning of every error code, for callers and documents."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class ProblemType(BaseModel):
    """One kind of error: its HTTP status, its meaning, and what the caller should do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    status: int
    title: str
    meaning: str
    action: str
    retryable: bool = False


CATALOGUE: Mapping[str, ProblemType] = {
    code: ProblemType(code=code, **entry)
    for code, entry in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items()
}


def of(code: str) -> ProblemType:
    """Return the problem type of `code`. Raise `LookupError` if it is not in the catalogue."""
    found = CATALOGUE.get(code)
    if found is None:
        raise LookupError(
            f"The problem type {code!r} is not in contracts/problems.toml: describe it there, "
            "or in a package of your own use a code that is."
        )
    return found
