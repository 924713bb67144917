"""Compressed uploads: gzip is unpacked as it arrives, in pieces of bounded size."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator

from chassis.errors import InvalidInput, PayloadTooLarge

# The bytes that are unpacked before other tasks may run.
_PIECE_BYTES = 64 * 1024
# Uniform text compresses to a tenth or less; a thousandth is an attack on memory or time.
MOST_RATIO = 200
# A short upload of equal lines compresses better than that, and is harmless.
FREE_BYTES = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS


async def inflated(parts: AsyncIterable[bytes], *, limit: int) -> AsyncIterator[bytes]:
    """Yield the unpacked bytes of a gzip stream of one or more members, at most `limit` bytes in all.

    Raise `InvalidInput` for data that is not gzip or is truncated, and `PayloadTooLarge` over the limit or
    when more than 1 MiB is unpacked from less than a 200th of it.
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
                    f"The upload is not valid gzip after {unpacked} unpacked bytes: send it again."
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
        raise InvalidInput("The gzip stream of the upload is truncated: send it again.")
