"""A walk through the OpenAPI document: every example is sent, and what one has made the next ones use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from support.broker_tap import Sent

Json = dict[str, Any]

# No message is parked on a good day.
_NOTHING_TO_READ = {"getParked"}
# The token of a login address is made on the host, and works once.
# A return path is signed with a key that the document cannot know.
_NOT_BY_EXAMPLE = {"createSession", "recordBounce"}
# Of the connection and the body, and of the policies of all answers.
_OF_EVERY_ANSWER = {
    *("date", "connection", "content-type", "content-length", "transfer-encoding", "x-accel-buffering"),
    *("x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy"),
}
_STREAMED = {"application/x-ndjson": b'{"payload":1}\n', "application/octet-stream": b"a file"}


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Yield the method, path and description of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@dataclass(frozen=True)
class Walked:
    """The examples that failed, answers with other headers than documented, and what the broker carried."""

    failed: Sequence[tuple[str, int, str]]
    misdescribed: Sequence[tuple[str, int, str]]
    sent: Sequence[Sent]


class Walk:
    """Executes the examples of the document; what one has made is the example of the next."""

    def __init__(self, api: httpx.AsyncClient, document: Json) -> None:
        self.api = api
        self.document = document
        self.made: list[str] = []
        self.misdescribed: list[tuple[str, int, str]] = []

    async def go(self) -> list[tuple[str, int, str]]:
        """Send all examples but deletions; return those that failed, with the status and the answer."""
        failed = []
        for method, path, operation in sorted(operations(self.document), key=_makers_first):
            # Only what this walk has made is changed, and nothing is ended.
            is_strange = method == "patch" and self._location(path) is None
            name = operation["operationId"]
            if method == "delete" or is_strange or name in _NOTHING_TO_READ | _NOT_BY_EXAMPLE:
                continue
            for example in _bodies(operation):
                answer = await self._send(method, path, operation, example)
                # Where these tests ran before, what they would make is there.
                if not answer.is_success and answer.status_code not in (303, 409):
                    failed.append((name, answer.status_code, answer.text[:200]))
        return failed

    async def _send(self, method: str, path: str, operation: Json, body: Any) -> httpx.Response:
        kinds = operation.get("requestBody", {}).get("content", {})
        # What a stream names in its query, a JSON body contains.
        is_document = body is not None and not _STREAMED.keys().isdisjoint(kinds)
        query = {}
        for parameter in operation["parameters"]:
            is_wanted = "example" in parameter and not is_document
            if parameter.get("in") == "query" and (parameter["required"] or is_wanted):
                query[parameter["name"]] = str(parameter["example"])
        sent: Json = {} if body is None else {"json": body}
        headers = {}
        for kind in kinds:
            if body is None and kind in _STREAMED:
                sent, headers = {"content": _STREAMED[kind]}, {"content-type": kind}
        if isinstance(body, str):
            kind = next(iter(operation["requestBody"]["content"]))
            sent, headers = {"content": body.encode()}, {"content-type": kind}
        names = {parameter.get("$ref", "").rpartition("/")[2] for parameter in operation["parameters"]}
        request = self.api.build_request(
            method,
            self._address(path, operation),
            params=query,
            headers={**headers, "if-match": "*"} if "If-Match-Required" in names else headers,
            **sent,
        )
        answer = await self.api.send(request, stream=True)
        if answer.headers.get("content-type") == "text/event-stream":
            # It may have no end: that it begins is enough.
            await anext(answer.aiter_bytes())
        else:
            await answer.aread()
        await answer.aclose()
        self._compare_headers(operation, answer)
        if "location" in answer.headers and not answer.has_redirect_location:
            self.made.append(answer.headers["location"])
        return answer

    def _compare_headers(self, operation: Json, answer: httpx.Response) -> None:
        """Note the headers of an answer that its description lacks, and those that it lacks itself."""
        described = operation["responses"].get(str(answer.status_code), {})
        if name := described.get("$ref", "").rpartition("/")[2]:
            described = self.document["components"]["responses"][name]
        shared, declared = self.document["components"]["headers"], {}
        for name, header in described.get("headers", {}).items():
            declared[name.lower()] = shared[header["$ref"].rpartition("/")[2]] if "$ref" in header else header
        found = set(answer.headers) - _OF_EVERY_ANSWER
        wanted = {name for name, header in declared.items() if header.get("required")}
        for name in sorted((found - declared.keys()) | (wanted - found)):
            self.misdescribed.append((operation["operationId"], answer.status_code, name))

    def _address(self, path: str, operation: Json) -> str:
        """Return `path` with the examples of its parameters, where nothing was made that it leads to."""
        named = path
        for parameter in operation["parameters"]:
            if parameter.get("in") == "path":
                named = named.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
        location = self._location(path)
        if location is None or any(f"{named}/".startswith(f"{made}/") for made in self.made):
            return named
        # What is below the made thing stays.
        return "/".join([location, *named.split("/")[location.count("/") + 1 :]])

    def _location(self, path: str) -> str | None:
        """Return the address of the deepest thing that was made and that `path` leads to, or below."""
        parts = path.split("/")
        for end in range(len(parts), 0, -1):
            if not parts[end - 1].startswith("{"):
                continue
            thing = re.compile("/".join("[^/]+" if "{" in part else re.escape(part) for part in parts[:end]))
            if (found := next(filter(thing.fullmatch, self.made), None)) is not None:
                return found
        return None


def _bodies(operation: Json) -> list[Any]:
    """Return the bodies to send, None for one without or for a stream."""
    contents: Json = operation.get("requestBody", {}).get("content", {})
    content: Json = contents.get("application/json") or next(iter(contents.values()), {})
    examples = [example["value"] for example in content.get("examples", {}).values()]
    # A batch is sent both ways.
    is_either = "application/json" in contents and not _STREAMED.keys().isdisjoint(contents)
    return [*examples, None] if is_either or not examples else examples


def _makers_first(one: tuple[str, str, Json]) -> tuple[bool, int]:
    method, path, _ = one
    return (method != "post", path.count("{"))
