"""No log line or report contains a secret, wherever it was put and whatever quotes it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel, ValidationError

from chassis import redaction
from chassis.redaction import REDACTED, KnownSecrets

KEY = "tw_live_0123456789abcdef_" + "k" * 43


@pytest.fixture
def remembered() -> Iterator[str]:
    before = KnownSecrets.values, KnownSecrets.pattern
    redaction.remember(["p/ss w@rd"])
    yield "p/ss w@rd"
    KnownSecrets.values, KnownSecrets.pattern = before


@pytest.mark.parametrize(
    ("said", "secret"),
    [
        (f"the key {KEY} is wrong", "k" * 43),
        ("cannot reach amqp://gateway:hunter2@broker:5672/tickwire", "hunter2"),
        ("cannot reach redis://:hunter2@cache", "hunter2"),
        ("< Authorization: Bearer hunter2", "hunter2"),
        ("('authorization', 'Basic aHVudGVyMg')", "aHVudGVyMg"),
        ("Authorization, Bearer hunter2", "hunter2"),
        ("[(b'authorization', b'hunter2')]", "hunter2"),
        ('{"connect":{"token":"hunter2"}}', "hunter2"),
        ("GET /v1/emails?api_key=hunter2&limit=1", "hunter2"),
        ("password: hunter2", "hunter2"),
    ],
)
def test_text_that_looks_like_a_secret_is_redacted(said: str, secret: str) -> None:
    assert secret not in redaction.text(said)
    assert REDACTED in redaction.text(said)


@pytest.mark.parametrize("said", ["message handled", "it is 10:30", "a=b", "see http://127.0.0.1:8080/x"])
def test_other_texts_stay_as_they_are(said: str) -> None:
    assert redaction.text(said) == said


@pytest.mark.parametrize("form", ["p/ss w@rd", "p%2Fss%20w%40rd", "p/ss%20w%40rd", "p%2Fss+w%40rd"])
def test_secrets_of_the_environment_are_redacted_in_every_form(remembered: str, form: str) -> None:
    assert redaction.text(f"the relay says 535 no such login {form}!") == (
        f"the relay says 535 no such login {REDACTED}!"
    )
    encoded = base64.b64encode(remembered.encode()).decode()
    assert encoded not in redaction.text(f"AUTH LOGIN, then {encoded}")


def test_a_secret_too_short_to_be_one_stays_part_of_words() -> None:
    redaction.remember(["a", ""])
    assert redaction.text("a banana") == "a banana"


def test_secrets_are_found_however_deep_they_are_nested() -> None:
    found: Any = redaction.value(
        {
            "settings": {"smtp_password": "hunter2", "host": "relay"},
            "headers": [(b"authorization", b"Bearer hunter2"), ("x-api-key", KEY)],
            "body": f'{{"key":"{KEY}"}}'.encode(),
            "attempts": ({"url": "amqp://a:hunter2@b"},),
        }
    )
    assert found["settings"] == {"smtp_password": REDACTED, "host": "relay"}
    assert found["attempts"] == [{"url": f"amqp://a:{REDACTED}@b"}]
    assert "hunter2" not in str(found)
    assert "k" * 43 not in str(found)


def test_a_pair_holds_a_secret_when_its_name_says_so() -> None:
    assert redaction.value([("authorization", "hunter2")]) == [["authorization", REDACTED]]


def test_endless_nesting_is_cut_off() -> None:
    endless: list[Any] = ["hunter2"]
    endless.append(endless)
    assert "…" in str(redaction.value(endless))


def test_plain_values_stay_what_they_are() -> None:
    plain = {"count": 3, "share": 0.5, "is_late": False, "next": None}
    assert redaction.value(plain) == plain


def test_an_object_is_written_as_text_without_secrets() -> None:
    class Login:
        def __str__(self) -> str:
            return "login with password=hunter2"

    assert redaction.value(Login()) == f"login with password={REDACTED}"


def test_a_database_error_is_written_without_the_row_that_it_quotes() -> None:
    error: Any = asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
    error.detail = "Key (subject)=(dear diary) already exists."
    error.table_name, error.constraint_name = "emails", "emails_pkey"
    assert (
        redaction.safe_message(error)
        == "UniqueViolationError (SQLSTATE 23505), table emails, constraint emails_pkey"
    )
    argument = asyncpg.DataError("invalid input for query argument $1: 'dear diary' (expected int)")
    assert redaction.safe_message(argument) == "DataError (SQLSTATE 22000)"


def test_a_database_error_that_quotes_nothing_is_written_whole() -> None:
    error = asyncpg.UndefinedTableError('relation "emails" does not exist')
    assert redaction.safe_message(error) == 'UndefinedTableError: relation "emails" does not exist'


def test_a_validation_error_is_written_without_the_input() -> None:
    class Mail(BaseModel):
        subject: int

    with pytest.raises(ValidationError) as caught:
        Mail.model_validate({"subject": "dear diary"})
    said = redaction.safe_message(caught.value)
    assert "subject: must be an integer" in said
    assert "diary" not in said


def test_of_very_many_validation_errors_only_their_number_is_written() -> None:
    class Numbers(BaseModel):
        all: list[int]

    for count, expected in (
        (2_000, "2000 problems in Numbers: all.0: must be"),
        (2_001, "2001 problems in Numbers: There are 2001 errors, too many to name."),
    ):
        with pytest.raises(ValidationError) as caught:
            Numbers.model_validate({"all": ["dear diary"] * count})
        assert expected in redaction.safe_message(caught.value)


def test_a_traceback_contains_causes_and_parts_without_the_values_that_they_quote() -> None:
    letter = "dear " + "diary"
    try:
        try:
            raise asyncpg.DataError(f"invalid input: {letter!r}")
        except asyncpg.DataError as error:
            raise ExceptionGroup("several", [ValueError(f"password={letter}"), KeyError(1)]) from error
    except ExceptionGroup as group:
        said = redaction.trace_back(group)
    assert letter not in said
    assert said.index("DataError") < said.index("ExceptionGroup") < said.index("ValueError: password=")
    assert "test_redaction.py" in said


def test_a_text_of_half_addresses_is_read_in_linear_time() -> None:
    half = "://ann:" * 40_000
    # Where each of them is searched to the end of the text for the @ of an address, this takes minutes.
    assert redaction.text(half) == half
    assert redaction.text(f"{half} amqp://ann:word@host") == f"{half} amqp://ann:{REDACTED}@host"


@pytest.mark.parametrize(
    "found",
    [
        {"event": "said", "token": "plain"},
        {"event": "AUTHORIZATION, Bearer hunter2"},
        {"event": "tw_live_0123_hunter2"},
        {"event": "a", "reason": "password=hunter2"},
        {"event": "a", "reason": "\0"},
        {"event": "a", "reason": "long" * 5_000},
        {"event": "a", "count": 2**70},
        {"event": "a", "nested": {"password": "hunter2"}},
        {"a b": "c"},
    ],
)
def test_a_line_is_harmless_only_if_redaction_would_leave_it_as_it_is(found: dict[str, object]) -> None:
    assert not redaction.is_harmless(found)


def test_a_line_of_plain_values_is_harmless_until_it_has_a_secret_of_the_environment(remembered: str) -> None:
    line = {"event": "request", "status": 202, "elapsed_s": 0.1, "route": "/v1/emails", "reason": None}
    assert redaction.is_harmless(line)
    assert not redaction.is_harmless({**line, "reason": f"about {remembered}"})
