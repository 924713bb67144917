"""Compressed uploads: gzip is unpacked while it arrives, a bounded piece at a time."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator

from chassis.errors import InvalidInput, PayloadTooLarge

# What is unpacked before others have their turn.
_PIECE_BYTES = 64 * 1024
# Text of one kind packs to a tenth or less; a thousandth is made to fill memory or time.
MOST_RATIO = 200
# A short upload of equal lines packs better than that, and harms nobody.
FREE_BYTES = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS


async def inflated(parts: AsyncIterable[bytes], *, limit: int) -> AsyncIterator[bytes]:
    """Yield the unpacked bytes of a gzip stream of one or more members, at most `limit` bytes in all.

    Raise `InvalidInput` for what is not gzip or ends too early, `PayloadTooLarge` over the limit or when more
    than 1 MiB is unpacked from less than a 200th of it.
    """
    unpacker = zlib.decompressobj(_GZIP)
    packed = unpacked = 0
    is_within_member = False
    async for part in parts:
        while part:
            if unpacker.eof:
                unpacker = zlib.decompressobj(_GZIP)
            try:
                piece = unpacker.decompress(part, _PIECE_BYTES)
            except zlib.error:
                raise InvalidInput(
                    f"The upload is not gzip after {unpacked} unpacked bytes: send it again, or uncompressed."
                ) from None
            left = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            packed += len(part) - len(left)
            unpacked += len(piece)
            part, is_within_member = left, not unpacker.eof
            if unpacked > limit:
                raise PayloadTooLarge(f"An upload may have at most {limit} bytes when it is unpacked.")
            if unpacked > FREE_BYTES and unpacked > MOST_RATIO * packed:
                raise PayloadTooLarge(
                    f"The upload unpacks to more than {MOST_RATIO} times its size: send it uncompressed."
                )
            yield piece
    if is_within_member:
        raise InvalidInput("The gzip stream of the upload ends too early: send it again.")
