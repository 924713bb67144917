"""Templates are rendered in processes of their own: what loops, explodes or ends one hurts nobody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from contracts.templates import TemplateSource
from emailer.errors import TemplateFailed
from emailer.templates.rendering import MOST_TOO_SLOW, TemplateRenderer

GOOD = TemplateSource(subject="For {{ name }}", text="Hello")
LOOPS = TemplateSource(
    subject="x", text="{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
)
EXPLODES = TemplateSource(subject="x", text="{{ 'x' * 1000000000 }}")


@pytest.fixture
async def renderer() -> AsyncIterator[TemplateRenderer]:
    made = TemplateRenderer()
    yield made
    await made.close()


async def code(renderer: TemplateRenderer, source: TemplateSource, *, owner_id: str = "bad") -> str:
    with pytest.raises(TemplateFailed) as failed:
        await renderer.render(source, {}, owner_id=owner_id)
    return failed.value.code


async def test_an_endless_template_is_ended_while_another_owner_is_served(renderer: TemplateRenderer) -> None:
    await renderer.render(GOOD, {"name": "Ann"}, owner_id="good")
    bad = [asyncio.create_task(code(renderer, LOOPS)) for _ in range(2)]
    longest = 0.0
    for _ in range(20):
        began = time.monotonic()
        assert (await renderer.render(GOOD, {"name": "Ann"}, owner_id="good")).subject == "For Ann"
        longest = max(longest, time.monotonic() - began)
        await asyncio.sleep(0.02)
    assert longest < 2
    assert not bad[1].done()
    assert set(await asyncio.gather(*bad)) == {"template-too-slow"}


async def test_a_template_that_needs_too_much_memory_fails_alone(renderer: TemplateRenderer) -> None:
    assert await code(renderer, EXPLODES) == "template-too-large"
    assert (await renderer.render(GOOD, {"name": "Ann"}, owner_id="bad")).subject == "For Ann"


async def test_a_killed_process_fails_its_template_only(renderer: TemplateRenderer) -> None:
    await renderer.render(GOOD, {"name": "Ann"}, owner_id="a")
    looping = asyncio.create_task(code(renderer, LOOPS))
    await asyncio.sleep(0.2)
    for process in renderer.processes:
        process.kill()
    assert await looping == "template-too-large"
    assert (await renderer.render(GOOD, {"name": "Bob"}, owner_id="a")).subject == "For Bob"
    for process in renderer.processes:
        process.kill()
        await process.wait()
    assert (await renderer.render(GOOD, {"name": "Eve"}, owner_id="a")).subject == "For Eve"


async def test_a_template_that_was_too_slow_often_is_not_tried_for_a_while(
    renderer: TemplateRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailer.templates.rendering._ANSWER_WITHIN_S", 0.3)
    for _ in range(MOST_TOO_SLOW):
        assert await code(renderer, LOOPS) == "template-too-slow"
    began = time.monotonic()
    assert await code(renderer, LOOPS) == "template-too-slow"
    assert time.monotonic() - began < 0.1


async def test_an_error_has_its_part_and_line(renderer: TemplateRenderer) -> None:
    with pytest.raises(TemplateFailed) as failed:
        await renderer.render(TemplateSource(subject="x", html="\n{{ a.b }}"), {"a": {}}, owner_id="a")
    assert (failed.value.part, failed.value.line) == ("html", 2)
    assert failed.value.described == "html: template-undefined: line 2: 'dict object' has no attribute 'b'"
    with pytest.raises(TemplateFailed):
        await renderer.check(TemplateSource(subject="{% x %}", text="a"), owner_id="a")
