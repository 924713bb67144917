"""The schemas in the reference accept and refuse the same objects as the services."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from contracts.batch_options import ToleratedFailure
from contracts.domains import DomainName
from contracts.mail import MailItem
from contracts.templates import TemplateSource


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (ToleratedFailure, {}),
        (ToleratedFailure, {"count": None}),
        (ToleratedFailure, {"count": None, "percent": None}),
        (ToleratedFailure, {"count": 0}),
        (ToleratedFailure, {"count": 3, "percent": None}),
        (ToleratedFailure, {"count": 3, "percent": 5}),
        (TemplateSource, {"subject": "s"}),
        (TemplateSource, {"subject": "s", "text": None, "html": None}),
        (TemplateSource, {"subject": "s", "text": "t"}),
        (TemplateSource, {"subject": "s", "text": "t", "html": "h"}),
        (TemplateSource, {"subject": "s", "html": "h", "mjml": None}),
        (TemplateSource, {"subject": "s", "html": "h", "mjml": "m"}),
        (TemplateSource, {"subject": "s", "text": "t", "html": "h", "mjml": "m"}),
        (MailItem, {"text": "t"}),
        (MailItem, {"to": [], "cc": [], "text": "t"}),
        (MailItem, {"to": [], "bcc": "ann@example.com", "text": None, "html": "h"}),
        (MailItem, {"to": ["ann@example.com"]}),
        (MailItem, {"to": ["ann@example.com"], "template": {"name": "hello"}, "subject": ""}),
        (MailItem, {"to": ["ann@example.com"], "template": {"name": "hello"}, "subject": "s"}),
        (MailItem, {"to": ["ann@example.com"], "template": {"name": "hello"}, "text": "t"}),
        (MailItem, {"to": ["ann@example.com"], "template": None, "text": "t"}),
        (DomainName, "example.com"),
        (DomainName, "münchen。example"),
        (DomainName, "example"),
        (DomainName, "ann@example.com"),
        (DomainName, "an example.com"),
    ],
)
def test_a_schema_says_of_an_object_what_the_service_does(kind: type[BaseModel], document: Any) -> None:
    adapter = TypeAdapter[Any](kind)
    try:
        adapter.validate_python(document)
        is_accepted = True
    except ValidationError:
        is_accepted = False
    assert jsonschema.Draft202012Validator(adapter.json_schema()).is_valid(document) == is_accepted
