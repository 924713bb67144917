"""A Postfix for the tests, which accepts any mail by SMTP and relays it to a server of the test."""

from __future__ import annotations

import asyncio
import os
import shutil
import smtplib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from native.ports import free_ports
from support.waiting import until

_MAIN = """
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = relay.example
mydestination =
local_recipient_maps =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{next_hop}
smtputf8_enable = yes
message_size_limit = 50000000
smtpd_tls_security_level = may
smtpd_tls_chain_files = {certificate}
maillog_file = {root}/log
maillog_file_prefixes = {root}
"""
_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
"""


@asynccontextmanager
async def running(*, next_hop: int, certificate: Path) -> AsyncIterator[int]:
    """Run Postfix for the length of the block; yield its port. `next_hop` is the port that it relays to.

    `certificate` is a file with the key and the certificate that it offers STARTTLS with.
    """
    if os.geteuid() != 0:
        pytest.skip("only root runs Postfix: its parts change to a user of their own")
    binary = shutil.which("postfix", path="/usr/sbin:/usr/bin")
    assert binary, "postfix is missing: deploy/native/setup.sh --test installs it"
    with tempfile.TemporaryDirectory(prefix="tickwire-postfix-") as folder:
        root, (port,) = Path(folder), free_ports(1)
        _write_configuration(root, port=port, next_hop=next_hop, certificate=certificate)
        await _control(binary, root, "start")
        try:
            await until(lambda: _answers(port), what=lambda: (root / "log").read_text()[-2000:])
            yield port
        finally:
            await _control(binary, root, "stop")


def _write_configuration(root: Path, *, port: int, next_hop: int, certificate: Path) -> None:
    # Its parts run as another user, who must be able to enter.
    root.chmod(0o755)
    for name in ("etc", "queue", "data"):
        (root / name).mkdir()
    shutil.chown(root / "data", "postfix")
    (root / "etc/main.cf").write_text(_MAIN.format(root=root, next_hop=next_hop, certificate=certificate))
    (root / "etc/master.cf").write_text(_MASTER.format(port=port))


async def _control(binary: str, root: Path, verb: str) -> None:
    process = await asyncio.create_subprocess_exec(
        binary,
        "-c",
        str(root / "etc"),
        verb,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


def _answers(port: int) -> bool:
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=2):
            return True
    except OSError:
        return False
