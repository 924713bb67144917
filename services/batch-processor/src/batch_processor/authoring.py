"""The tools of an author: `@operation` turns a function with types and a docstring into an operation."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel

from batch_processor.operation import Context, Operation, Resource, RetryPolicy
from chassis.egress.client import HttpAnswer, HttpRequest
from contracts.batch_options import RateLimit
from contracts.message import Json
from contracts.scopes import Scope

__all__ = [
    "Context",
    "HttpAnswer",
    "HttpRequest",
    "Json",
    "Operation",
    "RateLimit",
    "RetryPolicy",
    "Scope",
    "operation",
]

P = TypeVar("P")


def operation(
    name: str,
    *,
    required_scopes: Collection[Scope] = (),
    retry: RetryPolicy | None = None,
    timeout_s: float = 30,
    resource: Resource = "io",
    concurrency: int = 20,
    chunk_size: int = 100,
    max_concurrency: int | None = None,
    rate_limit: RateLimit | None = None,
    limit_key: str | None = None,
) -> Callable[[Callable[[P, Context], Awaitable[Json] | Json]], Operation]:
    """Return a decorator that turns a function of a payload and a `Context` into the operation `name`.

    The type of the payload is a pydantic model, which becomes the schema of an item, or `Json` to accept
    every value. The first line of the docstring becomes the description. A function that waits is `async`; a
    plain function computes and has the resource class `cpu`. Raise `TypeError` for any other function.
    """
    if isinstance(required_scopes, str):
        raise TypeError(f"required_scopes must be a collection of scopes, not the text {required_scopes!r}.")

    def make(function: Callable[[P, Context], Awaitable[Json] | Json]) -> Operation:
        description, _, _ = (inspect.getdoc(function) or "").partition("\n")
        if not description:
            raise TypeError(f"{function.__name__} must have a docstring: callers read its first line.")
        is_async = inspect.iscoroutinefunction(function)
        if not is_async and resource != "cpu":
            raise TypeError(f"{function.__name__} must be async, or be declared with resource='cpu'.")

        async def run(payload: P, context: Context) -> Json:
            result = function(payload, context)
            return await result if inspect.isawaitable(result) else result

        return Operation(
            name=name,
            description=description,
            payload=_payload_of(function),
            run=run,
            required_scopes=frozenset(required_scopes),
            retry=retry or RetryPolicy(),
            timeout_s=timeout_s,
            resource=resource,
            concurrency=concurrency,
            chunk_size=chunk_size,
            max_concurrency=max_concurrency,
            rate_limit=rate_limit,
            limit_key=limit_key,
        )

    return make


def _payload_of(function: Callable[..., Any]) -> type[BaseModel] | None:
    """Return the model of the payload of `function`; None where it accepts every value."""
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 2:
        raise TypeError(f"{function.__name__} must take two arguments: the payload and the context.")
    model = get_type_hints(function).get(parameters[0])
    if model is Any:
        return None
    if not (inspect.isclass(model) and issubclass(model, BaseModel)):
        raise TypeError(
            f"The payload of {function.__name__} must have a pydantic model as its type, or Json."
        )
    return model
