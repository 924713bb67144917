"""Domains as people write them, and the setting that says who may send from which."""

from __future__ import annotations

import pytest

from contracts.domains import MOST_CHARACTERS, AllowedSenders, domain_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("acme.example", "acme.example"),
        ("News.ACME.Example", "news.acme.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_domain_is_kept_as_dns_has_it(text: str, name: str) -> None:
    assert domain_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", "acme", "a@acme.example", "acme.example>", "acme .example", "*.acme.example", "[127.0.0.1]"),
        *("acme..example", "https://acme.example", "-acme.example", "acme.example/x", "a_b.example\n"),
        "x." * MOST_CHARACTERS + "example",
    ],
)
def test_a_text_of_another_form_is_no_domain(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        domain_name(text)


def test_an_empty_list_lets_everybody_send_from_anywhere() -> None:
    everybody = AllowedSenders.read(" ")
    assert everybody.allows("acme.example")
    assert everybody.named(["acme.example"]) == []


def test_a_list_lets_everybody_send_from_the_domains_that_it_names() -> None:
    some = AllowedSenders.read("none, Acme.example,news.acme.example")
    assert some.allows("ACME.example")
    assert not some.allows("x.acme.example")
    assert some.named(["acme.example", "other.example"]) == ["acme.example"]


def test_the_setting_none_lets_nobody_send_from_other_domains() -> None:
    assert not AllowedSenders.read("none").allows("acme.example")


def test_a_list_with_something_else_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match="domain"):
        AllowedSenders.read("acme.example, everybody")
