"""`python -m card`: the card of a stack in containers or pods, whose scripts know its addresses."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from card.text import Card


def main(arguments: list[str] | None = None) -> int:
    """Print the card of the stack that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m card", description=__doc__)
    parser.add_argument("--gateway", required=True, help="the gateway's address, with the scheme")
    parser.add_argument("--key-file", required=True, type=Path)
    parser.add_argument("--recover", required=True, help="the command that makes an administrator's key")
    parser.add_argument("--login", default="make login", help="the command that makes a login address")
    parser.add_argument("--proxy", default="", help="the address of the proxy in front, if there is one")
    parser.add_argument("--senders", default="", help="ALLOWED_SENDER_DOMAINS of the services")
    parser.add_argument(
        "--patience", type=float, default=20, help="seconds to wait for its first answer (20)"
    )
    parser.add_argument(
        "--page", action="append", default=[], help="name=address, optionally followed by a note"
    )
    parser.add_argument("--hint", action="append", default=[], help="name=command")
    options = parser.parse_args(arguments)
    card = Card(
        gateway=options.gateway,
        key=options.key_file.read_text(encoding="utf-8").strip(),
        key_file=str(options.key_file),
        recover=options.recover,
        login=options.login,
        proxy=options.proxy,
        patience_s=options.patience,
        senders=options.senders,
        pages=dict(page.split("=", 1) for page in options.page),
        hints=dict(hint.split("=", 1) for hint in options.hint),
    )
    sys.stdout.write(card.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
