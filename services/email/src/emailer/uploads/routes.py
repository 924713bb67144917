"""The HTTP edge: uploads, which are too large for messages and so bypass the broker."""

from __future__ import annotations

from uuid import UUID

from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from chassis.errors import Unauthenticated
from emailer.uploads.service import UploadReceiver


def add_routes(app: FastAPI, uploads: UploadReceiver) -> None:
    """Add `PUT /uploads/{id}`, for callers that got a token by `OpenUpload` over the broker."""

    @app.put("/uploads/{upload_id}")
    async def put(upload_id: UUID, request: Request) -> Response:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise Unauthenticated("The Authorization header must have the token that OpenUpload returned.")
        try:
            stored = await uploads.store(upload_id, token, request.stream())
        except ClientDisconnect:
            # The client is gone: nobody reads this response.
            return Response(status_code=400)
        return Response(stored.model_dump_json(), media_type="application/json")
