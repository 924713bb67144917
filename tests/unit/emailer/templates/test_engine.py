"""A template becomes a mail, or an error that names the part and line; it reaches no file or address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emailer.templates import engine
from emailer.templates.engine import TemplateError

MJML = (
    "<mjml><mj-body>{% for item in items %}<mj-section><mj-column><mj-text>{{ item }}</mj-text></mj-column>"
    "</mj-section>{% endfor %}</mj-body></mjml>"
)


def rendered(data: dict[str, Any], **source: str) -> dict[str, str | None]:
    return engine.render({"subject": "Hello", **source}, data)


def failure(data: dict[str, Any] | None = None, **source: str) -> TemplateError:
    with pytest.raises(TemplateError) as failed:
        rendered(data or {}, **source)
    return failed.value


def test_html_is_escaped_and_subject_and_text_are_not() -> None:
    found = rendered(
        {"name": "<b> & 'c'"}, subject="For {{ name }}", text="{{ name }}", html="<p>{{ name }}</p>"
    )
    assert found["subject"] == "For <b> & 'c'"
    assert found["text"] == "<b> & 'c'"
    assert found["html"] is not None
    assert "<p>&lt;b&gt; &amp; 'c'</p>" in found["html"]


def test_a_text_part_is_made_of_the_html() -> None:
    assert rendered({"name": "Ann"}, html="<p>Dear <b>{{ name }}</b></p>")["text"] == "Dear Ann\n"


def test_styles_are_inlined_and_none_is_loaded_from_anywhere(tmp_path: Path) -> None:
    sheet = tmp_path / "secret.css"
    sheet.write_text("p { color: green }")
    html = f"<link rel=stylesheet href='file://{sheet}'><style>p {{ margin: 0 }}</style><p>x</p>"
    found = rendered({}, html=html)["html"] or ""
    assert '<p style="margin: 0;">' in found
    assert "green" not in found


def test_mjml_becomes_html_with_the_data_escaped() -> None:
    found = rendered({"items": ["one", "<two>"]}, mjml=MJML)["html"] or ""
    assert "<table" in found
    assert "&lt;two&gt;" in found
    assert "mj-text" not in found


def test_mjml_includes_no_file(tmp_path: Path) -> None:
    part = tmp_path / "part.mjml"
    part.write_text("<mj-text>secret</mj-text>")
    error = failure(mjml=f"<mjml><mj-body><mj-include path='{part}'/></mj-body></mjml>")
    assert (error.code, error.part) == ("template-failed", "mjml")


@pytest.mark.parametrize(
    ("source", "code", "line"),
    [
        ("one\n{{ missing }}", "template-undefined", 2),
        ("one\ntwo\n{% if %}", "template-invalid", 3),
        ("{{ ''.__class__.__mro__ }}", "template-forbidden", 1),
        ("\n{{ items.append(1) }}", "template-forbidden", 2),
        ("{{ 1 / 0 }}", "template-failed", 1),
        ("{% include 'other' %}", "template-failed", 1),
        ("{{ lipsum() }}", "template-undefined", 1),
        ("{% for i in range(100000) %}many words{% endfor %}", "template-too-large", None),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "template-invalid", None),
        ("{{ " + "9" * 5000 + " }}", "template-invalid", None),
        ("{% for i in [1] %}" * 25 + "{% endfor %}" * 25, "template-invalid", None),
        ("{% if 1 %}" * 120 + "{% endif %}" * 120, "template-invalid", None),
    ],
    ids=lambda value: str(value)[:25],
)
def test_an_error_says_which_part_and_line_is_wrong(source: str, code: str, line: int | None) -> None:
    error = failure({"items": []}, text=source)
    assert (error.code, error.part, error.line) == (code, "text", line)


def test_a_subject_is_one_line_of_bounded_length() -> None:
    assert rendered({"name": "a\n b"}, subject="For\n{{ name }}", text="x")["subject"] == "For a b"
    # Spaces that mean something stay: of Japanese, and of French before a sign.
    assert (
        rendered({}, subject=" 東京\u3000駅\n n°\xa05\u202f! ", text="x")["subject"]
        == "東京\u3000駅 n°\xa05\u202f!"
    )
    assert failure(subject="a{{ x }}", text="x", data={"x": "\x07"}).part == "subject"
    assert failure(subject="{{ x }}", text="x", data={"x": "a" * 901}).code == "template-too-large"


def test_a_template_is_checked_without_data() -> None:
    engine.check({"subject": "{{ a }}", "text": "{{ b }}"})
    with pytest.raises(TemplateError) as failed:
        engine.check({"subject": "x", "html": "\n\n{% endfor %}"})
    assert (failed.value.part, failed.value.line) == ("html", 3)
