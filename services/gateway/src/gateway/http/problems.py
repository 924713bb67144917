"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from chassis.errors import InvalidInput, ServiceError
from chassis.problems import PROBLEM, field_errors, problem, problem_headers
from chassis.validation import errors_in
from contracts.message import FieldError
from gateway.http.replies import HttpReply

M = TypeVar("M", bound=BaseModel)


def reply(error: ServiceError) -> HttpReply:
    """Return `error` as an answer."""
    body = orjson.dumps(problem(error), option=orjson.OPT_APPEND_NEWLINE)
    headers = problem_headers(error)
    headers.pop("content-type", None)
    return HttpReply(body, error.status, PROBLEM, cache="no-store", headers=headers)


def invalid(pointer: str, detail: str) -> InvalidInput:
    """Return the error of one field."""
    return InvalidInput(detail, errors=[FieldError(pointer=pointer, detail=detail)])


def build(model: type[M], **values: Any) -> M:
    """Return `model` built from parsed parts. Raise `InvalidInput` if they are invalid."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise misfit("The body does not match its schema; see errors.", error) from None


def misfit(detail: str, error: ValidationError, *, at: str = "") -> InvalidInput:
    """Return the errors that pydantic found in the value at the JSON pointer `at`, each with its pointer."""
    found = field_errors(errors_in(error))
    return InvalidInput(
        detail,
        errors=[one.model_copy(update={"pointer": at + one.pointer}) for one in found] if at else found,
    )
