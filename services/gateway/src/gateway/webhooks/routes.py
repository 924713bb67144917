"""`/v1/webhooks`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import Conflict, DatabaseUnavailable, Forbidden, NotFound
from contracts.scopes import Scope
from gateway.acceptance.inputs import EXAMPLE_ID
from gateway.errors import PreconditionFailed
from gateway.http.endpoints import (
    CONTENT_TAG,
    Endpoint,
    Idempotency,
    Precondition,
    delete,
    get,
    json,
    nothing,
    patch,
    post,
)
from gateway.http.filters import SteppedResult
from gateway.webhooks.delivery_service import DeliveryService
from gateway.webhooks.inputs import (
    DeliveryDetail,
    DeliveryPage,
    WebhookDelivery,
    WebhookList,
    WebhookSecret,
    WebhookView,
)
from gateway.webhooks.service import WebhookService

_ETAG = {"ETag": "the version of the webhook, for If-Match"}


def endpoints(service: WebhookService, deliveries: DeliveryService) -> Iterator[Endpoint]:
    """Yield the endpoints of webhooks and of their deliveries."""
    yield post(
        "/v1/webhooks",
        service.create,
        name="createWebhook",
        summary="Have events sent to a URL",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        idempotency=Idempotency.TRANSACTION,
        answers={201: json(WebhookView, headers={**_ETAG, "Location": "the webhook"})},
        errors=(Forbidden, Conflict, DatabaseUnavailable),
        examples={
            "a webhook": {
                "url": "https://example.com/tickwire",
                "events": ["email.delivered", "email.failed", "batch.completed"],
            }
        },
    )
    yield get(
        "/v1/webhooks",
        service.list,
        name="listWebhooks",
        summary="List your webhooks, newest first",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        answers={200: json(WebhookList)},
        errors=(DatabaseUnavailable,),
    )
    yield from _one(service)
    yield from _changes(service)
    yield from _deliveries(deliveries)
    yield from _one_delivery(deliveries)


def _one(service: WebhookService) -> Iterator[Endpoint]:
    yield get(
        "/v1/webhooks/<uuid:webhook_id>",
        service.get,
        name="getWebhook",
        summary="Read a webhook, and whether its receiver answers",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        answers={200: json(WebhookView, headers=_ETAG)},
        errors=(NotFound, DatabaseUnavailable),
        examples={"webhook_id": EXAMPLE_ID},
    )
    yield get(
        "/v1/webhooks/<uuid:webhook_id>/secret",
        service.secret,
        name="getWebhookSecret",
        summary="Read the secret with which a receiver verifies the requests of a webhook",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        answers={200: json(WebhookSecret)},
        errors=(NotFound, Conflict, DatabaseUnavailable),
        examples={"webhook_id": EXAMPLE_ID},
    )


def _changes(service: WebhookService) -> Iterator[Endpoint]:
    yield patch(
        "/v1/webhooks/<uuid:webhook_id>",
        service.change,
        name="changeWebhook",
        summary="Change, disable or enable a webhook",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        answers={200: json(WebhookView, headers=_ETAG)},
        errors=(Forbidden, NotFound, PreconditionFailed, DatabaseUnavailable),
        precondition=Precondition.OPTIONAL,
        examples={"webhook_id": EXAMPLE_ID, "enable it": {"status": "active"}},
    )
    yield post(
        "/v1/webhooks/<uuid:webhook_id>/rotate",
        service.rotate,
        name="rotateWebhookSecret",
        summary="Give a webhook a new secret, with an overlap",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        idempotency=Idempotency.TRANSACTION,
        answers={200: json(WebhookView, headers=_ETAG)},
        errors=(NotFound, PreconditionFailed, DatabaseUnavailable),
        precondition=Precondition.OPTIONAL,
        examples={"webhook_id": EXAMPLE_ID, "an hour": {"overlap_s": 3600}},
    )
    yield delete(
        "/v1/webhooks/<uuid:webhook_id>",
        service.delete,
        name="deleteWebhook",
        summary="Delete a webhook and its deliveries",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        answers={204: nothing()},
        errors=(NotFound, PreconditionFailed, DatabaseUnavailable),
        precondition=Precondition.OPTIONAL,
        examples={"webhook_id": EXAMPLE_ID},
    )


def _deliveries(service: DeliveryService) -> Iterator[Endpoint]:
    yield post(
        "/v1/webhooks/<uuid:webhook_id>/test",
        service.test,
        name="testWebhook",
        summary="Send a test event to a webhook",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        idempotency=Idempotency.TRANSACTION,
        answers={202: json(WebhookDelivery, headers={"Location": "the delivery"})},
        errors=(NotFound, Conflict, DatabaseUnavailable),
        examples={"webhook_id": EXAMPLE_ID},
    )
    yield get(
        "/v1/webhooks/<uuid:webhook_id>/deliveries",
        service.list,
        name="listDeliveries",
        summary="List the deliveries of a webhook, newest first",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        answers={200: json(DeliveryPage)},
        errors=(NotFound, DatabaseUnavailable),
        examples={"webhook_id": EXAMPLE_ID},
    )
    yield post(
        "/v1/webhooks/<uuid:webhook_id>/deliveries/replay",
        service.replay_matching,
        name="replayDeliveries",
        summary="Deliver again what matches: without a status, what failed or was withdrawn",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        idempotency=Idempotency.TRANSACTION,
        answers={200: json(SteppedResult)},
        errors=(Forbidden, NotFound, Conflict, DatabaseUnavailable),
        after_repeat=service.show_again,
        examples={"webhook_id": EXAMPLE_ID},
    )


def _one_delivery(service: DeliveryService) -> Iterator[Endpoint]:
    yield get(
        "/v1/webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>",
        service.get,
        name="getDelivery",
        summary="Read a delivery: its body, its attempts, and when the next one is",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        answers={200: json(DeliveryDetail, headers=CONTENT_TAG)},
        errors=(Forbidden, NotFound, DatabaseUnavailable),
        examples={"webhook_id": EXAMPLE_ID, "delivery_id": EXAMPLE_ID},
    )
    yield post(
        "/v1/webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/replay",
        service.replay,
        name="replayDelivery",
        summary="Deliver again what has ended",
        tag="Webhooks",
        scope=Scope.WEBHOOKS_WRITE,
        idempotency=Idempotency.TRANSACTION,
        answers={202: json(WebhookDelivery, headers={"Location": "the delivery"})},
        errors=(Forbidden, NotFound, Conflict, DatabaseUnavailable),
        after_repeat=service.show_again,
        examples={"webhook_id": EXAMPLE_ID, "delivery_id": EXAMPLE_ID},
    )
