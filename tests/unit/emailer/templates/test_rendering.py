"""Templates are rendered in separate processes: one that loops, grows or crashes harms no other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from chassis.deadlines import Deadline
from chassis.errors import Overloaded, TooManyAtOnce
from contracts.templates import RenderedTemplate, TemplateSource
from emailer.errors import TemplateFailed
from emailer.templates import rendering
from emailer.templates.rendering import TemplateRenderer
from support.busy_threads import busy_threads
from support.waiting import until

GOOD = TemplateSource(subject="For {{ name }}", text="Hello")
LOOPS = TemplateSource(
    subject="x", text="{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
)
SLOW = TemplateSource(subject="x", text="{% for i in range(99999) %}{% endfor %}done")
SLOW_WITH_DATA = TemplateSource(
    subject="x",
    text="{% for i in range(times) %}{% for j in range(99999) %}{% endfor %}{% endfor %}done",
)
ENDLESS_CALL = TemplateSource(subject="x", text="{{ 7 ** 9999999999 > base }}")
EXPLODES = TemplateSource(subject="x", text="{{ 'x' * 1000000000 }}")


@pytest.fixture
async def renderer() -> AsyncIterator[TemplateRenderer]:
    made = TemplateRenderer()
    yield made
    await made.close()


@pytest.fixture
async def half() -> AsyncIterator[TemplateRenderer]:
    """Yield a renderer whose templates have half a second."""
    made = TemplateRenderer(cpu_s=0.5)
    yield made
    await made.close()


@pytest.fixture
async def brief() -> AsyncIterator[TemplateRenderer]:
    """Yield a renderer whose templates have little time."""
    made = TemplateRenderer(cpu_s=0.1)
    yield made
    await made.close()


async def code(
    renderer: TemplateRenderer, source: TemplateSource, data: dict[str, object] | None = None
) -> str:
    with pytest.raises(TemplateFailed) as failed:
        await renderer.render(source, data or {}, owner_id="bad")
    return failed.value.code


async def started(renderer: TemplateRenderer) -> None:
    """Wait until there is a process."""
    await until(lambda: bool(renderer.processes))


def kill(renderer: TemplateRenderer) -> None:
    """Kill all processes, as the kernel does when the memory of the machine is used up."""
    for process in renderer.processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


async def test_an_endless_template_is_ended_while_another_owner_is_served(half: TemplateRenderer) -> None:
    await half.render(GOOD, {"name": "Ann"}, owner_id="good")
    bad = [asyncio.create_task(code(half, LOOPS)) for _ in range(2)]
    for _ in range(5):
        assert (await half.render(GOOD, {"name": "Ann"}, owner_id="good")).subject == "For Ann"
        await asyncio.sleep(0.02)
    assert not bad[1].done()
    assert set(await asyncio.gather(*bad)) == {"template-too-slow"}


@pytest.mark.parametrize(("slow_cpu_s", "error"), [(0.01, TemplateFailed), (1000.0, Overloaded)])
async def test_a_preview_that_is_not_ready_in_time_is_slow_if_it_has_had_the_processor(
    monkeypatch: pytest.MonkeyPatch, slow_cpu_s: float, error: type[Exception]
) -> None:
    monkeypatch.setattr(rendering, "SLOW_CPU_S", slow_cpu_s)
    patient = TemplateRenderer(cpu_s=30)
    # Its process is there, so that all of the time is for the template.
    await patient.render(GOOD, {"name": "Ann"}, owner_id="a")
    async with asyncio.timeout(20):
        with pytest.raises(error):
            await patient.preview(LOOPS, {}, owner_id="a", until=Deadline.after(1))
    await patient.close()


async def test_owners_that_wait_for_their_threads_keep_no_process_from_others(
    renderer: TemplateRenderer,
) -> None:
    async with busy_threads("a", "b"):
        waiting = [
            asyncio.create_task(renderer.check(GOOD, owner_id=owner, until=Deadline.after(30)))
            for owner in "ab"
        ]
        await asyncio.sleep(0)
        await renderer.check(GOOD, owner_id="c", until=Deadline.after(30))
        assert not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)


async def test_a_template_whose_owner_gets_no_thread_in_time_is_put_off(
    renderer: TemplateRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailer.templates.rendering.TURN_WITHIN_S", 0.05)
    async with busy_threads("a"), asyncio.timeout(20):
        with pytest.raises(Overloaded, match="Too many templates"):
            await renderer.render(GOOD, {"name": "Ann"}, owner_id="a")


async def test_a_template_that_needs_too_much_memory_fails_alone(renderer: TemplateRenderer) -> None:
    assert await code(renderer, EXPLODES) == "template-too-large"
    assert (await renderer.render(GOOD, {"name": "Ann"}, owner_id="bad")).subject == "For Ann"


async def test_the_memory_that_a_template_of_one_owner_leaves_in_use_is_not_missing_for_another(
    renderer: TemplateRenderer,
) -> None:
    grows = TemplateSource(subject="x", text="{{ ([text * 100000] * count) | join | length }}")
    data = {"text": "x", "count": 1200}
    assert (await renderer.render(grows, data, owner_id="a")).text == "120000000"
    processes = {process.pid for process in renderer.processes}
    assert (await renderer.render(GOOD, {"name": "Ann"}, owner_id="b")).subject == "For Ann"
    assert not processes & {process.pid for process in renderer.processes}


async def test_a_process_that_took_little_memory_is_kept_however_much_the_service_has(
    renderer: TemplateRenderer,
) -> None:
    taken = b"x" * (200 << 20)
    await renderer.render(GOOD, {"name": "Ann"}, owner_id="a")
    (process,) = renderer.processes
    await renderer.render(GOOD, {"name": "Ann"}, owner_id="b")
    assert renderer.processes == (process,)
    assert len(taken) == 200 << 20


async def test_a_call_that_uses_the_time_up_is_ended_by_the_kernel(brief: TemplateRenderer) -> None:
    assert await code(brief, ENDLESS_CALL) == "template-too-slow"
    assert (await brief.render(GOOD, {"name": "Ann"}, owner_id="bad")).subject == "For Ann"


async def test_a_template_whose_process_is_killed_is_rendered_by_another_one(
    renderer: TemplateRenderer,
) -> None:
    rendering = asyncio.create_task(renderer.render(SLOW, {}, owner_id="a"))
    await started(renderer)
    kill(renderer)
    assert (await rendering).text == "done"
    kill(renderer)
    assert (await renderer.render(GOOD, {"name": "Eve"}, owner_id="a")).subject == "For Eve"


async def test_a_template_that_is_killed_each_time_is_put_off_longer_and_longer_and_has_not_failed(
    renderer: TemplateRenderer,
) -> None:
    async def kill_all() -> None:
        while True:
            await started(renderer)
            kill(renderer)
            await asyncio.sleep(0.01)

    killing = asyncio.create_task(kill_all())
    waits = []
    for _ in range(3):
        with pytest.raises(Overloaded, match="killed from outside") as failed:
            await renderer.render(SLOW, {}, owner_id="a")
        waits.append(failed.value.retry_after_s)
    killing.cancel()
    assert waits == [2, 4, 8]
    assert (await renderer.render(SLOW, {}, owner_id="a")).text == "done"


async def test_a_process_that_gets_no_time_of_a_busy_machine_is_no_fault_of_the_template(
    renderer: TemplateRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await renderer.render(GOOD, {"name": "Ann"}, owner_id="a")
    monkeypatch.setattr("emailer.templates.rendering.ANSWER_WITHIN_S", 0.2)
    for process in renderer.processes:
        process.send_signal(signal.SIGSTOP)
    with pytest.raises(Overloaded, match="CPU time"):
        await renderer.render(GOOD, {"name": "Ann"}, owner_id="a")
    assert renderer.processes == ()


async def test_a_template_that_was_too_slow_often_is_not_tried_for_a_while_with_the_same_data(
    brief: TemplateRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailer.templates.rendering.MOST_TOO_SLOW", 1)
    assert await code(brief, SLOW_WITH_DATA, {"times": 99999}) == "template-too-slow"
    await brief.render(GOOD, {"name": "Ann"}, owner_id="bad")
    (process,) = brief.processes
    assert await code(brief, SLOW_WITH_DATA, {"times": 99999}) == "template-too-slow"
    # A template that uses its time up ends the process that renders it.
    assert brief.processes == (process,)
    assert (await brief.render(SLOW_WITH_DATA, {"times": 1}, owner_id="bad")).text == "done"


async def test_previews_have_no_effect_on_mails(
    brief: TemplateRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailer.templates.rendering.MOST_TOO_SLOW", 1)
    with pytest.raises(TemplateFailed):
        await brief.preview(LOOPS, {}, owner_id="bad", until=Deadline.after(30))
    with pytest.raises(TemplateFailed, match=r"more than 0\.1 s"):
        await brief.render(LOOPS, {}, owner_id="bad")


async def test_a_preview_behind_other_templates_of_its_owner_is_told_so_before_its_deadline(
    half: TemplateRenderer,
) -> None:
    def preview(source: TemplateSource, *, within_s: float) -> Coroutine[Any, Any, RenderedTemplate]:
        deadline = Deadline.after(within_s)
        return half.preview(source, {"name": "Ann"}, owner_id="a", until=deadline)

    slow = asyncio.create_task(preview(LOOPS, within_s=30))
    await until(lambda: len(half.processes) == 1)
    with pytest.raises(TooManyAtOnce, match="of yours"):
        await preview(GOOD, within_s=0.1)
    slow.cancel()
    assert (await preview(GOOD, within_s=30)).subject == "For Ann"


async def test_an_error_has_its_part_and_line(renderer: TemplateRenderer) -> None:
    with pytest.raises(TemplateFailed) as failed:
        await renderer.render(TemplateSource(subject="x", html="\n{{ a.b }}"), {"a": {}}, owner_id="a")
    assert (failed.value.part, failed.value.line) == ("html", 2)
    assert failed.value.described == "html: template-undefined: line 2: 'dict object' has no attribute 'b'"
    with pytest.raises(TemplateFailed):
        await renderer.check(
            TemplateSource(subject="{% x %}", text="a"), owner_id="a", until=Deadline.after(30)
        )
