"""The card that is shown once everything is ready: addresses, the key, and commands to try."""

from __future__ import annotations

from native import probes
from native.errors import NotReadyError
from native.stack import Stack

_TEMPLATE = """
  Tickwire is ready.

    API           {gateway}
    reference     {gateway}/docs
    status        {gateway}/console/status    (asks for the API key)
    mailbox       {mailbox}
    Prometheus    {prometheus}
    API key       {key}
                  ({about_key})

    try it        curl -H "Authorization: Bearer $(cat {key_file})" {gateway}/v1/stocks/AAPL
    the tour      make demo
    break it      kill -9 {victim}      this is the email service: watch it come back, and lose nothing
    look inside   make status · tail -f {logs}/gateway.log
    stop          Ctrl-C, or make stop: the data stays for the next start
"""


async def why_key_fails(stack: Stack) -> str | None:
    """Return why the gateway refuses the API key of the stack, or None when it takes it."""
    try:
        status, _ = await probes.http_get(stack.ports.gateway, "/v1/me", key=stack.api_key)
    except (NotReadyError, OSError) as error:
        return f"the gateway did not answer: {error}"
    return None if status == 200 else f"the gateway refuses it with HTTP {status}: make keys-reset"


def text(stack: Stack, *, key_problem: str | None = None) -> str:
    """Return the card of a running stack; `key_problem` says why its API key does not work."""
    run = stack.blueprint.run
    return _TEMPLATE.format(
        about_key=key_problem or f"also in {_quoted(str(run.api_key))}",
        gateway=stack.url,
        mailbox=stack.mailbox.url,
        prometheus=stack.prometheus.url,
        key=stack.api_key,
        key_file=_quoted(str(run.api_key)),
        victim=stack.pids.get("email", "<process>"),
        logs=_quoted(str(run.logs)),
    )


def _quoted(path: str) -> str:
    return f"'{path}'" if " " in path else path
