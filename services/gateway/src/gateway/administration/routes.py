"""`/v1/admin` and `/healthz`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chassis.errors import NotFound, Unavailable
from chassis.health import Health
from contracts.pauses import Pause
from contracts.scopes import Scope
from gateway.administration import inputs
from gateway.administration.inputs import ParkedDetailView, ParkedList, PauseList
from gateway.administration.parked_service import ParkedService
from gateway.administration.pause_service import PauseService
from gateway.administration.status_service import StatusService
from gateway.errors import MonitoringNotConfigured, MonitoringUnavailable
from gateway.http.calls import Call
from gateway.http.endpoints import Endpoint, delete, get, json, nothing, post, put
from gateway.http.filters import BulkResult
from gateway.http.replies import HttpReply, document


def endpoints(
    parked: ParkedService, status: StatusService, pauses: PauseService, health: Health
) -> Iterator[Endpoint]:
    """Yield the endpoints of administration."""
    yield from _parked(parked)
    yield from _pauses(pauses)
    yield get(
        "/v1/admin/status",
        status.get,
        name="getStatus",
        summary="Read the golden signals of every service",
        tag="Administration",
        scope=Scope.ADMIN,
        answers={200: json(headers={"Age": "the age of the report in seconds"})},
        errors=(MonitoringNotConfigured, MonitoringUnavailable),
    )

    async def healthz(_: Call) -> HttpReply:
        # The reasons are only on the ops port, which is not public.
        is_ready = not health.reasons()
        body = document({"status": "ok" if is_ready else "unavailable"})
        return HttpReply(body, 200 if is_ready else 503)

    yield get(
        "/healthz",
        healthz,
        name="getHealth",
        summary="Report whether the gateway can work",
        tag="Administration",
        scope=None,
        is_public=True,
        answers={200: json(inputs.GatewayHealth), 503: json(inputs.GatewayHealth)},
    )


def _pauses(pauses: PauseService) -> Iterator[Endpoint]:
    about: dict[str, Any] = {"tag": "Administration", "scope": Scope.ADMIN}
    stop, go_on = pauses.pause_operation, pauses.resume_operation
    yield get(
        "/v1/admin/pauses",
        pauses.list,
        name="listPauses",
        summary="List the paused operations and owners",
        answers={200: json(PauseList)},
        errors=(Unavailable,),
        **about,
    )
    operation, owner = "operations/<name>", "owners/<int:user_id>"
    for path, example, pause, resume, what, whose in (
        (operation, {"name": "echo"}, stop, go_on, "Operation", "an operation"),
        (owner, {"user_id": 1}, pauses.pause_owner, pauses.resume_owner, "Owner", "a user's work"),
    ):
        yield put(
            f"/v1/admin/pauses/{path}",
            pause,
            name=f"pause{what}",
            summary=f"Pause {whose}",
            answers={200: json(Pause)},
            errors=(NotFound, Unavailable),
            examples={**example, "outage": {"reason": "the provider is down"}},
            **about,
        )
        yield delete(
            f"/v1/admin/pauses/{path}",
            resume,
            name=f"resume{what}",
            summary=f"Resume {whose}",
            answers={204: nothing()},
            errors=(Unavailable,),
            examples=example,
            **about,
        )


def _parked(parked: ParkedService) -> Iterator[Endpoint]:
    yield get(
        "/v1/admin/parked",
        parked.list,
        name="listParked",
        summary="List the messages that could not be handled, oldest first",
        tag="Administration",
        scope=Scope.ADMIN,
        answers={200: json(ParkedList)},
        errors=(Unavailable,),
    )
    yield get(
        "/v1/admin/parked/<service>/<int:number>",
        parked.get,
        name="getParked",
        summary="Read a parked message with its headers and body",
        tag="Administration",
        scope=Scope.ADMIN,
        answers={200: json(ParkedDetailView)},
        errors=(NotFound, Unavailable),
        examples={"service": "email", "number": 1},
    )
    yield post(
        "/v1/admin/parked/replay",
        parked.replay,
        name="replayParked",
        summary="Send parked messages to their original queue again",
        tag="Administration",
        scope=Scope.ADMIN,
        answers={200: json(BulkResult)},
        errors=(Unavailable,),
        examples={"service": "email", "queue": "email.send", "rate_per_s": 10},
    )
    yield post(
        "/v1/admin/parked/discard",
        parked.discard,
        name="discardParked",
        summary="Discard parked messages permanently",
        tag="Administration",
        scope=Scope.ADMIN,
        answers={200: json(BulkResult)},
        errors=(Unavailable,),
        examples={"service": "email", "ids": "1"},
    )
