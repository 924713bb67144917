"""Rendering of a template, in separate processes: Jinja2 in its immutable sandbox, MJML, CSS inlining."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, get_args

import css_inline
import mjml
from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contracts.mail_headers import MOST_VALUE, one_line
from emailer import plain_text

# The longest output of each part, in characters.
MOST_OUTPUT = 200_000

Part = Literal["subject", "text", "html", "mjml"]
PARTS: tuple[Part, ...] = get_args(Part)

# Style sheets are never loaded, neither from files nor over the network.
_INLINER = css_inline.CSSInliner(load_remote_stylesheets=False, keep_style_tags=True, keep_at_rules=True)
_CACHED = 64
# A subject may be written over several lines. Spaces of other scripts, and those that do not break, stay.
_BREAKS = re.compile("[ \t-\r\x1c-\x1f\x85\u2028\u2029]+")
# Neither the database nor a mail can have these characters.
_UNKEEPABLE = re.compile("[\x00\ud800-\udfff]")


class TemplateError(Exception):
    """A part of a template cannot be rendered; `line` counts from 1."""

    def __init__(self, code: str, part: Part, detail: str, *, line: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.part = part
        self.detail = detail[:500]
        self.line = line


def _environment(*, is_markup: bool) -> ImmutableSandboxedEnvironment:
    found = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=is_markup, keep_trailing_newline=True
    )
    # `lipsum` generates text of any length.
    del found.globals["lipsum"]
    return found


_ENVIRONMENTS = {True: _environment(is_markup=True), False: _environment(is_markup=False)}


def check(source: Mapping[str, str | None]) -> None:
    """Raise `TemplateError` for the first part that is not a valid template."""
    for part in PARTS:
        text = source.get(part)
        if text is not None:
            _compiled(part, text)


def render(source: Mapping[str, str | None], data: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the subject, text and HTML of a template rendered with `data`. Raise `TemplateError`."""
    check(source)
    filled = {part: _filled(part, text, data) for part in PARTS if (text := source.get(part)) is not None}
    html = filled.get("html")
    if "mjml" in filled:
        try:
            html = str(mjml.mjml2html(filled["mjml"]))
        except Exception as error:
            raise TemplateError("template-failed", "mjml", f"this is not MJML: {error}") from None
    if html is not None:
        html = _INLINER.inline(html)
        if len(html) > MOST_OUTPUT:
            raise TemplateError(
                "template-too-large",
                "mjml" if "mjml" in filled else "html",
                f"there are more than {MOST_OUTPUT} characters",
            )
    text = filled.get("text")
    return {
        "subject": _subject(filled["subject"]),
        "text": plain_text.from_html(html or "") if text is None else text,
        "html": html,
    }


def _subject(value: str) -> str:
    subject = _BREAKS.sub(" ", value).strip(" ")
    try:
        one_line(subject)
    except ValueError as error:
        raise TemplateError("template-failed", "subject", f"the subject {error}") from None
    if len(subject) > MOST_VALUE:
        raise TemplateError(
            "template-too-large", "subject", f"the subject has more than {MOST_VALUE} characters"
        )
    return subject


@lru_cache(_CACHED)
def _compiled(part: Part, text: str) -> Template:
    try:
        return _ENVIRONMENTS[part in ("html", "mjml")].from_string(text)
    except TemplateSyntaxError as error:
        detail = error.message or "this is not a template"
        raise TemplateError("template-invalid", part, detail, line=error.lineno) from None
    except (RecursionError, SyntaxError):
        # Python nests twenty loops at most, and a hundred blocks.
        raise TemplateError("template-invalid", part, "it is nested too deeply") from None
    except ValueError as error:
        # Python reads numbers of up to 4,300 digits.
        raise TemplateError("template-invalid", part, str(error)) from None


def _filled(part: Part, text: str, data: Mapping[str, Any]) -> str:
    template, written, length = _compiled(part, text), list[str](), 0
    try:
        for piece in template.generate(data):
            length += len(piece)
            if length > MOST_OUTPUT:
                raise TemplateError(
                    "template-too-large", part, f"there are more than {MOST_OUTPUT} characters"
                )
            written.append(piece)
    except (TemplateError, MemoryError):
        raise
    except UndefinedError as error:
        raise TemplateError("template-undefined", part, str(error), line=_line(error)) from None
    except SecurityError as error:
        raise TemplateError("template-forbidden", part, str(error), line=_line(error)) from None
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise TemplateError("template-failed", part, detail, line=_line(error)) from None
    found = "".join(written)
    if _UNKEEPABLE.search(found):
        raise TemplateError("template-failed", part, "it writes U+0000 or half of a surrogate pair")
    return found


def _line(error: BaseException) -> int | None:
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == "<template>"), None)
