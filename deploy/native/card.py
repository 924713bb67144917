"""What a person sees once everything is ready: addresses, the key, and what to try."""

from __future__ import annotations

from native.stack import Stack

_TEMPLATE = """
  Tickwire is ready.

    API           {gateway}
    status        {gateway}/console/status    (asks for the API key)
    mailbox       {mailbox}
    Prometheus    {prometheus}
    API key       {key}
                  (also in {key_file})

    try it        curl -H "Authorization: Bearer $(cat {key_file})" {gateway}/v1/stocks/AAPL
    the tour      make demo
    break it      kill -9 {victim}      this is the email service: watch it come back, and lose nothing
    look inside   make status · tail -f {logs}/gateway.log
    stop          Ctrl-C, or make stop: the data stays for the next start
"""


def text(stack: Stack) -> str:
    """Return the card of a running stack."""
    run = stack.blueprint.run
    return _TEMPLATE.format(
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
