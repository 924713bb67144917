"""Finding the route that serves a request, by its method and path."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter

from chassis.errors import MethodNotAllowed as MethodNotAllowedProblem
from chassis.errors import NotFound
from gateway.errors import NotImplementedMethod

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Known methods that no route serves.
_NEVER = ("TRACE", "CONNECT")
# How many paths have their rules remembered, and how many characters these may have.
_MOST_PATHS = 2048
_REMEMBERED_PATH = 128
# Characters that need no encoding (RFC 3986, section 2.3), and the slash, which would divide the path.
_DISGUISED = re.compile(rb"%(?:2[DEF]|3\d|[46][1-9A-F]|5[\dAF]|7[\dAE])", re.IGNORECASE)
_NOTHING_THERE = "There is nothing at this path; /docs lists all routes."


class Routes:
    """The routes of a gateway, each with the name of its rule."""

    def __init__(self, routes: MapAdapter) -> None:
        self._routes = routes
        # Matching takes longer than authentication, and most paths come again and again.
        self._remembered = lru_cache(maxsize=_MOST_PATHS)(self._find)

    def methods_of(self, scope: MutableMapping[str, Any]) -> set[str]:
        """Return the methods of a request's path. Raise `NotFound` if there is nothing at it."""
        _require_plain(scope)
        path = scope["path"]
        # `*` stands for the server as a whole.
        methods = set(METHODS) if path == "*" else set(self._routes.allowed_methods(path))
        if not methods:
            raise NotFound(_NOTHING_THERE)
        return methods | {"OPTIONS"}

    def match(self, scope: MutableMapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the rule that matches a request, and the parts of its path.

        Raise `NotFound`, `MethodNotAllowed` or `NotImplementedMethod`.
        """
        method, path = scope["method"], scope["path"]
        _require_plain(scope)
        if method not in METHODS and method not in _NEVER:
            known = ", ".join(METHODS)
            raise NotImplementedMethod(f"The method {method[:20]!r} is not supported; use one of {known}.")
        find = self._remembered if len(path) <= _REMEMBERED_PATH else self._find
        rule, found = find(path, method)
        return rule, dict(found)

    def _find(self, path: str, method: str) -> tuple[str, Mapping[str, Any]]:
        try:
            rule, found = self._routes.match(path, method)
        except MethodNotAllowed as error:
            allow = ", ".join(sorted(error.valid_methods or ()))
            raise MethodNotAllowedProblem(
                f"This path does not support {method[:20]}; use one of: {allow}.", headers={"allow": allow}
            ) from None
        except HTTPException:
            raise NotFound(_NOTHING_THERE) from None
        return str(rule), found


def _require_plain(scope: MutableMapping[str, Any]) -> None:
    """Raise `NotFound` for a path in another spelling than its only one.

    A proxy in front might read such a path differently, and let a forbidden request pass.
    """
    if _DISGUISED.search(scope.get("raw_path", b"")) or scope["path"].startswith("//"):
        raise NotFound(
            "A path must not begin with two slashes, or encode a slash, a letter, a digit or one of '-._~'."
        )
