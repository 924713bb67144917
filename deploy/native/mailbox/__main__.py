"""`python -m native.mailbox`: run the mailbox by itself."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import uvicorn

from chassis import allocator
from chassis.stoppable import StoppableServer
from native.mailbox import api, receiver
from native.mailbox.keeping import Folder
from native.mailbox.messages import MOST_BYTES, MOST_MESSAGES, Store
from native.ports import HOST


def main(arguments: list[str] | None = None) -> None:
    """Run until SIGTERM or Ctrl-C."""
    options = _parser().parse_args(arguments)
    if options.directory is None:
        store = Store(most=options.keep, most_bytes=options.keep_bytes)
        incoming = receiver.Receiver(store, scripted=not options.no_script)
    else:
        folder = Folder(options.directory)
        store = Store(most=options.keep, most_bytes=options.keep_bytes, forgotten=folder.remove)
        for message in folder.load():
            store.add(message)
        incoming = receiver.Receiver(store, scripted=not options.no_script, keep=folder.write)
    app = api.create_app(store, incoming, smtp_host=options.host, smtp_port=options.smtp_port)
    allocator.limit_arenas()
    print(f"SMTP on {options.host}:{options.smtp_port}, web page http://{options.host}:{options.http_port}")
    _MailboxServer(
        uvicorn.Config(
            app,
            host=options.host,
            port=options.http_port,
            log_level="warning",
            # The loop that updates this header is replaced below, so it would show the time of the start.
            date_header=False,
            # A page with open keep-alive connections must not hold up the stop.
            timeout_graceful_shutdown=1,
        )
    ).run()


class _MailboxServer(StoppableServer):
    """Gives memory back to the system while it serves."""

    async def main_loop(self) -> None:
        """Wait until the server must stop."""
        giving_back = asyncio.create_task(allocator.give_back_forever())
        await super().main_loop()
        giving_back.cancel()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m native.mailbox",
        description="Accept mail by SMTP, deliver none, and show it on a web page and over Mailpit's API.",
        epilog=receiver.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default=HOST, help=f"address to listen on (default {HOST})")
    parser.add_argument("--smtp-port", type=int, default=1025, help="default 1025")
    parser.add_argument("--http-port", type=int, default=8025, help="default 8025")
    parser.add_argument(
        "--keep", type=int, default=MOST_MESSAGES, help=f"number of newest messages to keep ({MOST_MESSAGES})"
    )
    parser.add_argument(
        "--keep-bytes", type=int, default=MOST_BYTES, help=f"bytes of the messages to keep ({MOST_BYTES})"
    )
    parser.add_argument(
        "--directory", type=Path, help="folder in which messages survive a restart (default: none)"
    )
    parser.add_argument(
        "--no-script", action="store_true", help="accept every message, whatever the recipient's name"
    )
    return parser


if __name__ == "__main__":
    main()
