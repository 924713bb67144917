"""Splits an upload into runs of items: lines are checked as they arrive, and are not kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from chassis.errors import InvalidInput, PayloadTooLarge
from contracts.items import MOST_ITEMS, MOST_LINE_BYTES
from contracts.message import FieldError
from gateway.batches.lines import places_of_payloads, read_alone, read_together
from gateway.batches.payload_checks import PayloadCheck

CHUNK_ITEMS = 500
_CHUNK_BYTES = 512 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Others, such as form feeds, are spaces to Python only.
_JSON_SPACES = b" \t\r"
# The most invalid lines that are listed, and how many lines after the first of them are checked.
MOST_BAD_LINES = 20
LINES_LOOKED_AT = 100_000


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive items in JSON, the position of the first, and their lines unless those are position + 1.

    `end` is the number of bytes of the upload up to the end of the last line, whose number is `last_line`.
    `places` are the start and the end of each payload in the items joined by commas; None if not known.
    """

    offset: int
    items: list[bytes]
    lines: list[int] | None
    end: int
    last_line: int
    places: list[int] | None


@dataclass
class Cutter:
    """Turns the bytes of an upload into runs of items.

    `feed` takes bytes and returns the runs that are complete; `flush` returns the remaining complete lines,
    and `finish` also the last line without an end. `check` validates the payloads against the operation's
    schema. The other fields are the state from which a resumed upload continues. Raise `InvalidInput` with
    the first invalid lines, `PayloadTooLarge` for a line or an upload that is too long.
    """

    total: int = 0
    line_number: int = 0
    rest: bytes = b""
    # The bytes of the complete lines so far.
    end: int = 0
    check: PayloadCheck | None = field(default=None, kw_only=True)
    _items: list[bytes] = field(default_factory=list)
    _numbers: list[int] = field(default_factory=list)
    _places: list[int] | None = field(default_factory=list)
    _size: int = 0
    _bad: list[FieldError] = field(default_factory=list)
    _first_bad: int = 0

    def feed(self, data: bytes) -> list[Run]:
        """Take more bytes; return runs of at most 500 items."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > MOST_LINE_BYTES:
            raise PayloadTooLarge(f"Line {self.line_number + 1} is longer than {MOST_LINE_BYTES} bytes.")
        runs = []
        while lines:
            free = CHUNK_ITEMS - len(self._items)
            some, lines = lines[:free], lines[free:]
            if self._take_together(some):
                runs += [self._cut()] if self._is_full else []
                continue
            for line in some:
                self._take(line)
                self.end += len(line) + 1
                runs += [self._cut()] if self._is_full else []
        return runs

    def flush(self) -> list[Run]:
        """Return the remaining items of complete lines. Raise `InvalidInput` if lines were invalid."""
        if self._bad:
            raise self._refusal()
        return [self._cut()] if self._items else []

    def finish(self) -> list[Run]:
        """Return the last run, if any. Raise `InvalidInput` if lines were invalid or there was no item."""
        if self.rest:
            self._take(self.rest)
            self.end += len(self.rest)
            self.rest = b""
        last = self.flush()
        if not self.total:
            raise InvalidInput("The upload has no items: send one JSON object per line.")
        return last

    @property
    def _is_full(self) -> bool:
        return len(self._items) >= CHUNK_ITEMS or self._size >= _CHUNK_BYTES

    def _take_together(self, lines: list[bytes]) -> bool:
        """Take lines that are certainly valid items at a fraction of the cost; return False for others."""
        if self._bad or self.total + len(lines) > MOST_ITEMS:
            return False
        items = read_together(lines, self.check)
        if items is None:
            return False
        self.end += sum(map(len, lines)) + len(lines)
        lines = [line.strip() for line in lines]
        if self._places is not None:
            places = places_of_payloads(lines, items, start=self._size + len(self._items))
            self._places = None if places is None else self._places + places
        self._items += lines
        self._numbers += range(self.line_number + 1, self.line_number + 1 + len(lines))
        self._size += sum(map(len, lines))
        self.total += len(lines)
        self.line_number += len(lines)
        return True

    def _take(self, line: bytes) -> None:
        if not self.line_number:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        self.line_number += 1
        line = line.strip(_JSON_SPACES)
        if not line:
            return
        if len(line) > MOST_LINE_BYTES:
            raise PayloadTooLarge(f"Line {self.line_number} is longer than {MOST_LINE_BYTES} bytes.")
        item = read_alone(line, self.check)
        if isinstance(item, tuple):
            pointer, detail = item
            if not self._bad:
                self._first_bad = self.line_number
                self._items.clear()
                self._numbers.clear()
                self._size = 0
            at = f"/{self.line_number - 1}{pointer}"
            self._bad.append(FieldError(pointer=at, detail=f"Line {self.line_number} {detail}."))
            if len(self._bad) == MOST_BAD_LINES:
                raise self._refusal()
        if self._bad or isinstance(item, tuple):
            # The upload will be refused: the remaining lines are read only to report their errors.
            if self.line_number - self._first_bad >= LINES_LOOKED_AT:
                raise self._refusal()
            return
        if self._places is not None:
            # A long line may have very many values, which nobody should have to parse again.
            places = places_of_payloads([line], [item], start=self._size + len(self._items))
            self._places = None if places is None else self._places + places
        self._items.append(line)
        self._numbers.append(self.line_number)
        self._size += len(line)
        self.total += 1
        if self.total > MOST_ITEMS:
            raise PayloadTooLarge(f"A batch has at most {MOST_ITEMS} items.")

    def _refusal(self) -> InvalidInput:
        detail = self._bad[0].detail
        if len(self._bad) > 1:
            detail += f" {len(self._bad) - 1} more lines up to line {self.line_number} are bad; see errors."
        return InvalidInput(detail, errors=self._bad)

    def _cut(self) -> Run:
        items, numbers = self._items, self._numbers
        offset = self.total - len(items)
        # Without empty lines, the line number is the position, counted from 1.
        lines = None if numbers[-1] == self.total else numbers
        places = self._places
        self._items, self._numbers, self._places, self._size = [], [], [], 0
        return Run(offset, items, lines, self.end, self.line_number, places)
