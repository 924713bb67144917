"""The text part made from HTML."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emailer import plain_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>Two</p>", "One\n\nTwo\n"),
        ("One<br>Two", "One\nTwo\n"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n\n- b\n"),
        ("<p>See <a href='https://x.example/1'>this</a></p>", "See this (https://x.example/1)\n"),
        ("<a href='https://x.example'>https://x.example</a>", "https://x.example\n"),
        ("<a href='javascript:alert(1)'>no</a>", "no\n"),
        ("<head><title>T</title><style>p{}</style></head><body>Hi</body>", "Hi\n"),
        ("<head><meta charset=utf-8><body>Open head", "Open head\n"),
        ("<script>if (a<b) {}</script>Hi", "Hi\n"),
        ("a &amp; b &euro; 5", "a & b € 5\n"),
        ("<img alt='Logo' src='cid:1'> Hello   \n  there", "Logo Hello there\n"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b\n"),
    ],
)
def test_html_is_read_like_a_reader_sees_it(html: str, text: str) -> None:
    assert plain_text.from_html(html) == text


@given(st.text(alphabet=st.sampled_from("<>/=\"' abplidvhref!-&;\n")))
def test_anything_can_be_read(html: str) -> None:
    assert plain_text.from_html(html).endswith("\n")
