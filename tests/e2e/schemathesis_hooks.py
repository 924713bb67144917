"""Rules that Schemathesis cannot read from the document: over several fields, and for headers of one use."""

from __future__ import annotations

import gzip
import json
import os
import re
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis.internal import charmap
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoveragePhaseData, TestPhase
from schemathesis.openapi.checks import RejectedPositiveData

from support import accepted_requests

# Schema-valid input may be refused with these types: they depend on what exists, not on a shape.
OF_THE_STATE = {
    "invalid-cursor",
    "unknown-operation",
    "idempotency-mismatch",
    "precondition-failed",
    "too-many-alerts",
    "too-many-schedules",
    "schedule-busy",
}
# … and for these reasons, which a schema cannot say: they join fields, compare with the time, want an address
# as mail servers do, or a number or text that comes back exactly. JSON Schema also takes 3.0 for an integer.
BEYOND_A_SCHEMA = re.compile(
    "must be in the future|must be at most .* days ahead|"
    "ids and a cursor belong to one service|must be a decimal number|the header name '.*' must be|"
    "give at least one of|must be later than (send_at|run_at)|must be earlier than expires_at|must be base64|"
    "to, cc and bcc together must name|"
    "text, html or both must be given|template-|"
    "must not contain control characters|"
    "A JSON body contains its |Name the operation of the upload|Send items or a source|"
    "A dry run stores nothing|give run_at or delay_s|give unique or unique_key|period_s must be given|"
    "must be an e-mail address|must be a Message-ID|must be one line|must have a name of at most|"
    "must be one address|must be a domain |"
    r"The number is beyond ±2\^53|U\+0000|"
    "must be an integer|"
    "must have no more than|change_percent must not be 0|"
    "is not an administrator|the channels are|does not name a |"
    "must be five fields|is not a cron expression|must name a time that comes|in the IANA database|"
    "or payload and priority for a task|options are those of a batch|with overlap skip|is used twice|"
    "each run sets its own|"
    "end must not be before start|html and mjml must not be given together|must be nested at most|"
    "the header .* (is given twice|is reserved|must be ASCII)|must have at most .* bytes|"
    "must not repeat a parameter|"
    "is not a valid DNS name|Port [0-9]+ is refused|must be four decimal numbers|"
    "The upload has no items|The first line must name the columns|There is no user |The user .* is disabled"
)

IMPORT = "POST /v1/suppressions/import"


@schemathesis.serializer("application/x-ndjson")
def lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Send a text as the only line of an upload: what its lines are is beyond the schema of a text."""
    if context.case.operation.label == IMPORT:
        return b'{"address":"ann@example.com"}\n'
    return json.dumps({"payload": str(value)}).encode()


@schemathesis.serializer("message/rfc822")
def mail(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """Send a text as it is: what a report of a bounce says is beyond the schema of a text."""
    return str(value).encode()


# For the test: the method, path and status of every answer.
STATUSES = Path(os.environ["TICKWIRE_STATUSES"])
# Who makes these requests, and ids of nobody with which that one is spared.
OWN = json.loads(os.environ["TICKWIRE_OWN_IDS"])
NOBODY = {"key_id": "0123456789abcdef", "user_id": 999_999}
# For how long mails are kept: other tests read their mails meanwhile, and the operator bounds it.
RETENTION = {"PUT /v1/emails/retention", "PUT /v1/admin/emails/retention/{user_id}"}
# Whether every value is sent that breaks a rule of the document, or one for each way to break it.
IS_WHOLE = os.environ["TICKWIRE_WHOLE"] == "1"
SENT: Counter[tuple[object, ...]] = Counter()
# Of well-formed requests that differ in which of their optional fields they have.
MOST_ALIKE = 2
# The first well-formed request of each operation and phase is completed, and every third after it.
EVERY = 3
TURNS: Counter[tuple[str, TestPhase]] = Counter()


# Hypothesis would find out by trying each character, for seconds: UTF-8 has all but the surrogates.
characters = charmap.charmap_file("codec-v2-utf-8")
characters.parent.mkdir(parents=True, exist_ok=True)
characters.write_bytes(gzip.compress(b"[[[0, 55295], [57344, 1114111]], []]"))


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Leave out what follows, or breaks, a rule of the same place in the same way as those before it."""
    if IS_WHOLE or case.meta is None:
        return True
    data = case.meta.phase.data
    if not isinstance(data, CoveragePhaseData):
        return True
    place = (case.operation.label, data.parameter_location, data.parameter, data.location)
    way = (*place, data.scenario, case.method)
    SENT[way] += 1
    return SENT[way] <= (MOST_ALIKE if case.meta.generation.mode.is_positive else 1)


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Replace values in valid headers by usable ones; intentionally invalid headers stay unchanged."""
    for name, own in OWN.items():
        # The key and the user with which all of this is done must not end.
        if case.method != "GET" and str(case.path_parameters.get(name)) == own:
            case.path_parameters[name] = NOBODY[name]
    operation = case.operation.label
    # The links of a sequence lead to things that exist.
    if case.meta and case.meta.generation.mode.is_positive and case.meta.phase.name != TestPhase.STATEFUL:
        turn = (operation, case.meta.phase.name)
        if TURNS[turn] % EVERY == 0:
            accepted_requests.complete(case)
        TURNS[turn] += 1
    body = case.meta and case.meta.components.get(ParameterLocation.BODY)
    if operation in RETENTION and not (body and body.mode.is_negative):
        case.body = {"content_days": 14, "record_days": 60}
    for name, value in case.headers.items():
        # Ids of answers come as numbers, also where a header takes one.
        case.headers[name] = str(value)
    if case.headers.get("Request-Timeout") == "0.05":
        # Who waits for 0.05 s gets 504 from a busy machine, which is right and says nothing here.
        case.headers.pop("Request-Timeout")
    part = case.meta.components.get(ParameterLocation.HEADER) if case.meta else None
    if part is not None and part.mode.is_negative:
        return
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f'"{uuid.uuid4()}"'
    if "If-Match" in case.headers:
        case.headers["If-Match"] = "*"
    # Who waits for 0.05 s gets 504 from a busy machine, which is right and says nothing here.
    case.headers.pop("Request-Timeout", None)
    case.headers.pop("Prefer", None)


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], response: schemathesis.Response
) -> None:
    """Note the status of an answer: with a report of all cases Schemathesis takes a fifth longer."""
    with STATUSES.open("a") as statuses:
        print(case.method, case.path, response.status_code, file=statuses)


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    response: schemathesis.Response,
) -> bool:
    """Keep a failure, unless valid data was refused for a reason that no schema can say."""
    if case.method == "QUERY" and response.status_code == 501:
        # The server does not know the method at all, for which RFC 9110 wants 501 and not 405.
        return False
    if isinstance(failure, AcceptedNegativeData) and case.operation.label == IMPORT:
        # The line that is sent for any text is a good one.
        return False
    if not isinstance(failure, RejectedPositiveData):
        return True
    problem = json.loads(response.content)
    if problem["type"].removeprefix("/problems/") in OF_THE_STATE:
        return False
    reasons = [error["detail"] for error in problem.get("errors", [])] or [problem["detail"]]
    return not all(BEYOND_A_SCHEMA.search(reason) for reason in reasons)
