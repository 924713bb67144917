"""The text part that is made from HTML: what a reader sees, at a cost that is linear in the size."""

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
        ("One<br><br><br><br>Two", "One\n\nTwo\n"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n- b\n"),
        ("<p>See <a href='https://x.example/1'>this</a></p>", "See this (https://x.example/1)\n"),
        ("<a href='https://x.example/?a=1&amp;b=2'>x</a>", "x (https://x.example/?a=1&b=2)\n"),
        ("<a title='href=\"https://y\"' HREF=https://x.example>x</a>.", "x (https://x.example).\n"),
        ("<a href='https://x.example'>https://x.example</a>", "https://x.example\n"),
        ("<a href='mailto:a@x.example'>Ann</a>", "Ann (a@x.example)\n"),
        ("<a href='javascript:alert(1)'>no</a>", "no\n"),
        ("<a href='https://x.example'>one<a href='https://y.example'>two", "one (https://x.example)two"),
        ("<head><title>T</title><style>p{}</style></head><body>Hi</body>", "Hi\n"),
        ("<head><meta charset=utf-8><body>Open head", "Open head\n"),
        # The end of a head may be left out, and so may the beginning of a body.
        ("<html><head><title>T</title><meta charset=utf-8><p>Open head", "Open head\n"),
        ("<pre>\n  a\r\n    b <b>c</b>  d\n\n\n\ne</pre> f\n g", "  a\n    b c d\n\ne\n\nf g\n"),
        ("a <pre>b\nc", "a\n\nb\nc\n"),
        (
            "<a href=' HTTPS://x.example '>x</a> <a href=MailTo:a@x.example>y</a>",
            "x (HTTPS://x.example) y (a@x.example)\n",
        ),
        ("<script>if (a<b) {} '</p>'</script>Hi", "Hi\n"),
        ("<SCRIPT></SCRIPT >Hi<style></style>", "Hi\n"),
        ("a &amp; b &euro; 5 &#65;&#x42;", "a & b € 5 AB\n"),
        ("<img alt='Logo' src='cid:1'> Hello   \n  there", "Logo Hello there\n"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</table>", "a b\nc\n"),
        ("a<!-- <p>hidden -- > --> b <!> c <?x?> d </> e<![CDATA[x]]>", "a b c d e\n"),
        ("1 < 2 & 3 > 2 <3", "1 < 2 & 3 > 2 <3\n"),
        ("<p title=it's>Hi</p><p title='a>b'>Ho</p>", "Hi\n\nHo\n"),
        ("", "\n"),
    ],
)
def test_html_is_read_like_a_reader_sees_it(html: str, text: str) -> None:
    assert plain_text.from_html(html).startswith(text)


PIECES = (
    *(
        "<!--",
        "-->",
        "<",
        ">",
        "</",
        "<!",
        "<?",
        "&",
        "&amp",
        "&#",
        "&#x",
        "9",
        ";",
        '"',
        "'",
        "=",
        " ",
        "\n",
    ),
    *("<a href=", "<a ", "</a>", "<p", "<div>", "</div>", "<script>", "</script", "<title>", "<td>", "<li>"),
    *("<br>", "https://x", "ü", "\0", "\ufffd", "😀", "text", "<img alt='", "<textarea>", "]]>", "<head>"),
)
markup = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@given(markup | st.text())
def test_every_character_belongs_to_one_token(html: str) -> None:
    at = 0
    for token in plain_text.tokens(html):
        assert (token.start, token.end >= token.start) == (at, True)
        at = token.end
    assert at == len(html)


@given(markup | st.text())
def test_any_text_can_be_read_and_does_not_grow(html: str) -> None:
    text = plain_text.from_html(html)
    assert text.endswith("\n")
    assert len(text) <= len(html) + 1
    assert "\n\n\n" not in text
    assert plain_text.from_html(html) == text


HOSTILE = [
    *(
        "<!--",
        "<!-",
        "<!",
        "<?",
        "</",
        "<",
        "<a",
        "<a ",
        '<a b="',
        "<a b='",
        "<a b=",
        "<a =",
        "</p",
        "&",
        "&#",
    ),
    *(
        "<div>",
        "<b>",
        "<a href=https://x>",
        "<table><td>",
        "<li>",
        "<script>",
        "<script",
        "</script>",
        "<title>",
    ),
    *(
        "<svg><![CDATA[",
        "<b><p>",
        "<i></b>",
        "&amp",
        "&nGt",
        "9",
        " ",
        "\n",
        "<br>",
        "<textarea>",
        "=",
        "= ",
        '="',
    ),
    *(
        '<a href="https://x"></a>',
        "<img alt='x'>",
        "x ",
        "--",
        "--!",
        "<!-->",
        "<td> ",
        "<head>",
        "</head>",
        " \n",
    ),
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize(
    "frame", ["{}", "<a {}", "<p x='{}'>", "<!-- {}", "<script>{}", "&#{}", "<a href=https://{}>"]
)
def test_the_work_is_bounded_by_the_size(piece: str, frame: str) -> None:
    html = frame.format(piece * (14_000 // len(piece)))
    tokens = list(plain_text.tokens(html))
    assert sum(token.end - token.start for token in tokens) == len(html)
    assert len(tokens) <= len(html) + 1
    assert len(plain_text.from_html(html)) <= len(html) + 1


def test_the_text_and_the_markup_that_is_read_are_limited() -> None:
    assert len(plain_text.from_html("x " * plain_text.MOST_CHARACTERS)) == plain_text.MOST_CHARACTERS + 1
    assert plain_text.from_html("<p>" * plain_text.MOST_TOKENS + "never seen") == "\n"


def test_a_reference_with_thousands_of_digits_is_one_unknown_character() -> None:
    assert plain_text.from_html(f"a&#{'9' * 5000};b&#x{'f' * 5000};c") == "a\ufffdb\ufffdc\n"
