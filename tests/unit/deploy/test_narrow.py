"""The cut of the lock file that goes into one image."""

from __future__ import annotations

import re
from pathlib import Path

from containers import narrow

REPOSITORY = Path(__file__).resolve().parents[3]
LOCK = """\
alpha==1.0 \\
    --hash=sha256:aa
    # via tickwire-email (services/email/pyproject.toml)
beta==2.0 ; sys_platform == 'linux' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via
    #   -r requirements.in
    #   alpha
gamma==3.0 \\
    --hash=sha256:dd
    # via beta
delta==4.0 \\
    --hash=sha256:ee
    # via -r requirements.in
"""


def names(pins: list[narrow.Pin]) -> list[str]:
    return [pin.name for pin in pins]


def test_the_dependencies_of_a_root_are_followed_down() -> None:
    assert names(narrow.needed(narrow.read(LOCK), ["tickwire-email"])) == ["alpha", "beta", "gamma"]


def test_a_root_may_be_a_package_of_the_lock() -> None:
    assert names(narrow.needed(narrow.read(LOCK), ["beta"])) == ["beta", "gamma"]


def test_versions_markers_and_hashes_stay_as_they_are() -> None:
    kept = "".join(pin.text for pin in narrow.needed(narrow.read(LOCK), ["tickwire-email"]))
    assert kept == LOCK[: LOCK.index("delta")]


def test_both_versions_of_a_package_that_differs_by_python_are_kept() -> None:
    pins = narrow.needed(
        narrow.read(_lock()), ["tickwire-contracts", "tickwire-chassis", "tickwire-batch-processor"]
    )
    assert names(pins).count("numpy") == 2


def test_no_service_carries_packages_that_only_another_or_the_native_run_needs() -> None:
    pins = narrow.read(_lock())
    assert "numpy" not in names(
        narrow.needed(pins, ["tickwire-contracts", "tickwire-chassis", "tickwire-gateway"])
    )
    assert "quart" not in names(
        narrow.needed(pins, ["tickwire-contracts", "tickwire-chassis", "tickwire-email"])
    )
    for service in ("gateway", "stock-data", "email", "batch-processor"):
        kept = set(
            names(narrow.needed(pins, ["tickwire-contracts", "tickwire-chassis", f"tickwire-{service}"]))
        )
        assert kept.isdisjoint({"aiosmtpd", "honcho", "rich", "hatchling"}), service


def test_the_lock_has_every_direct_dependency_of_each_service() -> None:
    # Fails when a pyproject.toml has grown since `make lock`: an image would lack that package.
    pins = narrow.read(_lock())
    for project in REPOSITORY.glob("services/*/pyproject.toml"):
        text = project.read_text()
        service = re.search(r'^name = "(.+)"', text, re.MULTILINE)
        wanted = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        assert service is not None
        assert wanted is not None
        # The lock writes names as the index of packages does, with dashes alone.
        found = re.findall(r'"([A-Za-z0-9._-]+)', wanted[1])
        direct = {re.sub(r"[._]+", "-", name.lower()) for name in found}
        listed = {pin.name for pin in pins if service[1] in pin.wanted_by}
        assert direct - {"tickwire-chassis", "tickwire-contracts"} <= listed, project


def _lock() -> str:
    return (REPOSITORY / "requirements.lock").read_text()
