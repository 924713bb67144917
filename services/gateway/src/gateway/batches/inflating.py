"""Compressed uploads: gzip is unpacked as it arrives, in pieces of bounded size."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable, AsyncIterator

from chassis.errors import InvalidInput, PayloadTooLarge

# The bytes that are unpacked before other tasks may run.
_PIECE_BYTES = 64 * 1024
# Uniform text compresses to a tenth or less; a thousandth is an attack on memory or time.
MOST_RATIO = 200
# A short upload of equal lines compresses better than that, and is harmless.
FREE_BYTES = 1 << 20
# bgzip ends each file with an empty member, and files that are concatenated may be empty. Each costs as much
# as some lines.
MOST_EMPTY_MEMBERS = 1000
# Programs that write in blocks, such as those for tapes, fill the last one behind a member with zeros, which
# readers of gzip skip. Blocks of more than 1 MiB are not in use.
MOST_PADDING_BYTES = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS


async def inflated(parts: AsyncIterable[bytes], *, limit: int) -> AsyncIterator[bytes]:
    """Yield the unpacked bytes of a gzip stream of one or more members, at most `limit` bytes in all.

    Zeros behind a member are skipped. Raise `InvalidInput` for data that is not gzip, is truncated or has too
    many empty members or zeros, and `PayloadTooLarge` over the limit or when more than 1 MiB is unpacked from
    less than a 200th of it.
    """
    unpacker = zlib.decompressobj(_GZIP)
    packed = unpacked = empty = padding = member_begin = 0
    is_within_member = False
    async for part in parts:
        while part:
            if unpacker.eof:
                part, padding = _behind_padding(part, padding)
            if not part:
                # Zeros yield nothing, so nothing else would let other tasks run.
                await asyncio.sleep(0)
                break
            if unpacker.eof:
                unpacker, member_begin = zlib.decompressobj(_GZIP), unpacked
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
            empty += unpacker.eof and unpacked == member_begin
            if empty > MOST_EMPTY_MEMBERS:
                raise InvalidInput(
                    f"The gzip stream has more than {MOST_EMPTY_MEMBERS} empty members: send it without them."
                )
            if unpacked > limit:
                raise PayloadTooLarge(f"An upload may have at most {limit} bytes when it is unpacked.")
            if unpacked > FREE_BYTES and unpacked > MOST_RATIO * packed:
                raise PayloadTooLarge(
                    f"The upload unpacks to more than {MOST_RATIO} times its size: send it uncompressed."
                )
            if piece:
                yield piece
            else:
                # An empty member yields nothing, so nothing else would let other tasks run.
                await asyncio.sleep(0)
    if is_within_member:
        raise InvalidInput("The gzip stream of the upload is truncated: send it again.")


def _behind_padding(part: bytes, padding: int) -> tuple[bytes, int]:
    """Return `part` without the zeros that it begins with, and their number added to `padding`."""
    rest = part.lstrip(b"\0")
    padding += len(part) - len(rest)
    if padding > MOST_PADDING_BYTES:
        raise InvalidInput(
            f"The gzip stream has more than {MOST_PADDING_BYTES} zeros behind its members: "
            "send it without them."
        )
    return rest, padding
