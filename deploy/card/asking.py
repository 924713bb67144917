"""Requests to the gateway of a running stack, and to the other web pages of the stack."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request

LOGIN_MINUTES = 10
_ONE_ANSWER_S = 10.0
# The servers are local: proxies in the environment are not used.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# For addresses to which no key is sent: a server answers whoever has signed its certificate.
_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE
_TRUSTING_OPENER = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_UNVERIFIED)
)


class NoAnswer(Exception):
    """The gateway did not answer as expected; the message says why."""


def why_key_fails(url: str, key: str, *, patience_s: float = 0) -> str | None:
    """Return why the gateway refuses an API key, or None; wait up to `patience_s` for its first answer."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            _ask(f"{url}/v1/me", key)
        except urllib.error.HTTPError as error:
            error.close()
            return f"the gateway refuses it with HTTP {error.code}"
        except OSError as error:
            if time.monotonic() > deadline:
                return f"the gateway did not answer: {error}"
            time.sleep(0.3)
        else:
            return None


def login_address(url: str, key: str) -> str:
    """Return an address that logs a browser into the console once. Raise `NoAnswer` if it cannot be made."""
    try:
        answer = _ask(f"{url}/v1/console/logins", key, {"ttl_s": LOGIN_MINUTES * 60})
    except urllib.error.HTTPError as error:
        with error:
            raise NoAnswer(f"the gateway refuses with HTTP {error.code}: {_detail(error.read())}") from None
    except OSError as error:
        raise NoAnswer(f"the gateway did not answer: {error}") from None
    return url + str(json.loads(answer)["path"])


def answers(url: str) -> bool:
    """Return whether a server answers at an address, even with a request for credentials."""
    try:
        with _TRUSTING_OPENER.open(url, timeout=_ONE_ANSWER_S):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500
    except (OSError, ValueError):
        return False


def _ask(url: str, key: str, document: dict[str, int] | None = None) -> bytes:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    data = None if document is None else json.dumps(document).encode()
    if data is None:
        del headers["content-type"]
    with _OPENER.open(urllib.request.Request(url, data, headers), timeout=_ONE_ANSWER_S) as answer:  # noqa: S310
        return bytes(answer.read())


def _detail(problem: bytes) -> str:
    try:
        return str(json.loads(problem)["detail"])
    except (ValueError, KeyError, TypeError):
        return problem.decode(errors="replace")[:200]
