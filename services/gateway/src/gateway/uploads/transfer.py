"""The transfer of an upload's bytes to email: one HTTP request without the broker, at the pace of both."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import orjson
from pydantic import ValidationError

from chassis.errors import NotFound, PayloadTooLarge, Unavailable
from contracts.mail import MOST_UPLOAD_BYTES
from contracts.uploads import StoredUpload
from gateway.http.outgoing import read_within

_MOST_BYTES = 64 * 1024
# Email stores each part before it takes the next.
_PATIENCE_S = 20.0


class Transfer:
    """Sends uploads to the email service at `url`, up to `most` at a time."""

    def __init__(self, url: str, *, most: int) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=2),
            timeout=_PATIENCE_S,
            # The service is on the same network: the proxies of the environment are not used.
            trust_env=False,
            verify=ssl.create_default_context() if url.startswith("https:") else False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def put(self, upload_id: UUID, token: str, content: AsyncIterator[bytes]) -> StoredUpload:
        """Send `content`, and return the stored upload.

        Raise `Unavailable` if email does not accept it.
        """
        try:
            async with self._client.stream(
                "PUT",
                f"/uploads/{upload_id}",
                content=content,
                headers={"authorization": f"Bearer {token}", "content-type": "application/octet-stream"},
            ) as response:
                body = await read_within(response, _MOST_BYTES)
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(
                "The email service did not accept the upload; send it again in a few seconds.",
                retry_after_s=2,
            ) from error
        if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            raise PayloadTooLarge(f"An upload may have at most {MOST_UPLOAD_BYTES} bytes.")
        if response.status_code == httpx.codes.NOT_FOUND:
            raise NotFound("The upload took too long and was discarded; send it again.")
        try:
            response.raise_for_status()
            return StoredUpload.model_validate(orjson.loads(body))
        except (httpx.HTTPStatusError, ValidationError, orjson.JSONDecodeError) as error:
            raise Unavailable(
                "The email service could not store the upload; send it again in a few seconds.",
                retry_after_s=2,
            ) from error
