"""Operations made from functions, and the template of a package with one."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from batch_processor.authoring import Context, Json, RetryPolicy, Scope, operation
from batch_processor.execution.failures import cause_of
from chassis import errors
from support.operation_world import OperationWorld

TEMPLATE = Path(__file__).parents[3] / "docs/templates/operation"


class NumberPayload(BaseModel):
    n: int


async def test_a_function_with_types_and_a_docstring_becomes_an_operation(world: OperationWorld) -> None:
    @operation("double", required_scopes={Scope.QUOTES_READ}, retry=RetryPolicy(1), timeout_s=3)
    async def double(payload: NumberPayload, context: Context) -> Json:
        """Doubles a number.

        More about it.
        """
        return payload.n * 2 + context.position

    assert (double.name, double.description, double.payload) == ("double", "Doubles a number.", NumberPayload)
    assert double.required_scopes == {Scope.QUOTES_READ}
    assert double.retry.max_attempts == 1
    assert (double.timeout_s, double.lanes) == (3, 20)
    assert await double.run(NumberPayload(n=4), world.context(1)) == 9


def test_a_text_in_place_of_a_set_of_scopes_is_refused() -> None:
    with pytest.raises(TypeError, match="a collection of scopes, not the text 'admin'"):
        operation("any", required_scopes="admin")  # type: ignore[arg-type]  # as an author may write it


async def test_a_plain_function_computes_one_item_at_a_time(world: OperationWorld) -> None:
    @operation("square", resource="cpu", concurrency=7)
    def square(payload: Json, _: Context) -> Json:
        """Squares a number."""
        return payload**2

    assert (square.payload, square.lanes, square.item_schema) == (None, 1, {})
    assert await square.run(3, world.context()) == 9


async def no_docstring(payload: NumberPayload, _: Context) -> Json:
    return None


def plain(payload: NumberPayload, _: Context) -> Json:
    """Waits for nothing."""
    return None


async def three(payload: NumberPayload, _: Context, more: int) -> Json:
    """Takes too much."""
    return None


async def untyped(payload: str, _: Context) -> Json:
    """Has no model."""
    return None


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (no_docstring, "no_docstring must have a docstring"),
        (plain, "plain must be async, or be declared with resource='cpu'"),
        (three, "three must take two arguments"),
        (untyped, "payload of untyped must have a pydantic model as its type"),
    ],
)
def test_a_function_that_cannot_be_one_is_refused_with_the_reason(function: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        operation("some.name")(function)


def test_the_guide_tells_the_code_of_an_error_and_whether_it_is_tried_again() -> None:
    guide = (TEMPLATE.parents[1] / "guides/operations.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([\w-]+)` \| (yes|no) \|$", guide, re.MULTILINE)
    causes = [(name, cause_of(getattr(errors, name)("why"))) for name, _, _ in rows]
    assert rows == [(name, cause.code, "yes" if cause.retryable else "no") for name, cause in causes]
    assert len(rows) >= 5


def test_an_error_with_a_code_of_its_own_is_refused_with_what_to_do() -> None:
    with pytest.raises(LookupError, match="in a package of your own use a code that is"):
        type("NoTariff", (errors.NotFound,), {"code": "no-tariff"})


async def test_the_template_installs_and_passes_its_tests(tmp_path: Path) -> None:
    package, site = tmp_path / "package", tmp_path / "site"
    shutil.copytree(TEMPLATE, package)
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    for command in (
        [*install, "--target", str(site), str(package)],
        ["pytest", "-q", "-p", "no:cacheprovider"],
    ):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", *command],
            cwd=package,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_the_commands_of_the_guide_rename_the_template(tmp_path: Path) -> None:
    guide = (TEMPLATE.parents[1] / "guides/operations.md").read_text()
    [block] = re.findall(r"^   ```sh\n((?:(?!   ```).*\n)*?.*\bsed -i .*\n)   ```$", guide, re.MULTILINE)
    commands = [line.strip() for line in block.splitlines() if "pip uninstall" not in line]
    checkout, renamed = tmp_path / "checkout", tmp_path / "text-slug"
    checkout.mkdir()
    shutil.copytree(TEMPLATE, tmp_path / "text-words", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    subprocess.run(["sh", "-ec", "\n".join(commands)], cwd=checkout, check=True, timeout=30)
    texts = {path.name: path.read_text() for path in renamed.rglob("*.*") if path.is_file()}
    assert not [name for name, text in texts.items() if re.search(r"text[-_.]words", text)]
    assert '"text.slug" = "text_slug.words:words"' in texts["pyproject.toml"]
    assert '@operation("text.slug", ' in (renamed / "src/text_slug/words.py").read_text()
