"""Which cluster the commands may change, with a stand-in for kubectl."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from upkeep import kubernetes_stack
from upkeep.errors import UpkeepError

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"


def environment(folder: Path, said: str) -> dict[str, str]:
    """Return an environment in which kubectl prints `said`, whatever it is asked."""
    program = folder / "kubectl"
    program.write_text(f'#!/bin/sh\necho "{said}"\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def keys(repository: Path, *, mounted: str, usual: str) -> None:
    """Store the key that pods have, and the one in `.run`, which may be that of another stack."""
    for place, key in (("k8s/overlays/local/secrets/gateway", mounted), (".run", usual)):
        (repository / place).mkdir(parents=True)
        (repository / place / "api-key").write_text(key)


def test_a_cluster_whose_servers_operators_run_is_not_changed(tmp_path: Path) -> None:
    with pytest.raises(UpkeepError, match=r"k8s/README\.md says what to do"):
        kubernetes_stack.at(tmp_path, environment(tmp_path, ""))


@pytest.mark.parametrize(
    ("verb", "last"), [("upgrade-check", "Go ahead"), ("support-bundle", "/tickwire-support-")]
)
def test_a_cluster_whose_servers_operators_run_can_be_asked(tmp_path: Path, verb: str, last: str) -> None:
    folder = ("--folder", str(tmp_path)) if verb == "support-bundle" else ()
    done = subprocess.run(
        [sys.executable, "-m", "upkeep", "--way", "kubernetes", verb, *folder],
        env={**environment(tmp_path, ""), "PYTHONPATH": str(DEPLOY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert last in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ((sys.executable, "-m", "upkeep", "--way", "kubernetes", "support-bundle"), "{}"),
        (("deploy/containers/upkeep", "support-bundle", "kubernetes"), "'{}'  # ours"),
        (("deploy/containers/upkeep", "support-bundle", "kubernetes"), "{} # ours"),
    ],
    ids=["program", "script", "script_without_quotes"],
)
def test_a_bundle_of_a_cluster_is_of_the_place_and_goes_to_the_folder_that_the_file_names(
    tmp_path: Path, command: tuple[str, ...], line: str
) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    named = line.format(tmp_path / "named")
    (tmp_path / ".env").write_text(f"KUBE_CONTEXT=home\nKUBE_NAMESPACE=ours\nSUPPORT_FOLDER={named}\n")
    asks = environment(tmp_path, "$*")
    for variables, folder in (({}, "named"), ({"SUPPORT_FOLDER": str(tmp_path / "mine")}, "mine")):
        done = subprocess.run(
            command,
            env={**asks, **variables, "PYTHONPATH": str(tmp_path / "deploy")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        (file,) = (tmp_path / folder).iterdir()
        assert done.stdout.splitlines()[-1] == str(file), done.stderr
        with tarfile.open(file) as found:
            shown = found.extractfile(f"{file.name.removesuffix('.tar.gz')}/processes.txt")
            assert shown is not None
            assert shown.read().startswith(b"--context home -n ours get pods")


def test_a_checkout_without_the_files_of_the_secrets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UpkeepError, match="run this in the checkout"):
        kubernetes_stack.at(tmp_path, environment(tmp_path, "statefulset.apps/postgres"))


@pytest.mark.parametrize(
    ("usual", "place"), [("ours", ".run/api-key"), ("other", "k8s/overlays/local/secrets/gateway/api-key")]
)
def test_the_key_file_is_the_one_with_the_key_of_the_pods(tmp_path: Path, usual: str, place: str) -> None:
    keys(tmp_path, mounted="ours", usual=usual)
    stack = kubernetes_stack.at(tmp_path, environment(tmp_path, "statefulset.apps/postgres"))
    assert stack.key_file == tmp_path / place
    assert stack.secret("api-key") == "ours"


def test_the_addresses_are_those_that_are_forwarded_also_by_the_file(tmp_path: Path) -> None:
    keys(tmp_path, mounted="ours", usual="ours")
    (tmp_path / ".env").write_text("GATEWAY_PORT=9000\nPORT_OFFSET=10\n")
    stack = kubernetes_stack.at(tmp_path, environment(tmp_path, "statefulset.apps/postgres"))
    assert (stack.gateway_url, stack.mailbox_url) == ("http://127.0.0.1:9000", "http://127.0.0.1:8035")
