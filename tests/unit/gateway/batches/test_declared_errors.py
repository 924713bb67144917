"""The problems that the endpoints of batches and tasks declare are those that they answer with."""

from __future__ import annotations

from typing import Any, cast

from gateway.batches import routes
from gateway.batches.open_uploads import OpenUploads
from gateway.batches.service import BatchService
from gateway.reference import outcomes

NOBODY = cast(Any, None)
UPLOADS = OpenUploads(NOBODY, NOBODY, NOBODY, catalogue=NOBODY, turns=NOBODY, backlog=NOBODY)
SERVICE = BatchService(NOBODY, NOBODY, NOBODY, uploads=NOBODY, open_uploads=UPLOADS, hub=NOBODY)
DECLARED = {
    endpoint.name: {problem.code for problem in outcomes.of(endpoint)}
    for endpoint in routes.endpoints(SERVICE)
}
ACTIONS = {name for name in DECLARED if name.startswith(("cancel", "pause", "resume", "retry", "move"))}
ON_MANY = {name for name in ACTIONS if name.endswith(("Batches", "Tasks"))}


def declaring(code: str) -> set[str]:
    return {name for name, codes in DECLARED.items() if code in codes}


def test_what_lets_items_run_may_find_that_their_operation_is_gone() -> None:
    runs = {name for name in ACTIONS if name.startswith(("resume", "retry", "move"))}
    assert len(runs) == 9
    assert declaring("unknown-operation") & ACTIONS == runs


def test_an_action_on_one_batch_may_not_fit_its_state_nor_many_requests_one_unique_key() -> None:
    # Not even a cancel fits a batch whose command waits for an administrator.
    assert declaring("conflict") >= (ACTIONS - ON_MANY) | {"createTask"}


def test_without_batch_processor_or_the_broker_all_but_what_the_gateway_stores_itself_may_fail() -> None:
    own = {"listOperations", "getUpload", "sealBatch", "createTask"}
    assert declaring("service-unavailable") == declaring("broker-unavailable") == DECLARED.keys() - own
