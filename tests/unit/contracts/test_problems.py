"""The catalogue of problem types, and the error classes of every service that it describes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import batch_processor
import chassis
import emailer
import gateway
import stock_data
from chassis.errors import ServiceError
from contracts import problems
from contracts.problems import ProblemType

PACKAGES = (batch_processor, chassis, emailer, gateway, stock_data)


def error_classes() -> Iterator[type[ServiceError]]:
    """Yield every error class of the product; importing all modules finds those outside errors.py too."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    waiting = [ServiceError]
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        if found.__module__.partition(".")[0] in {package.__name__ for package in PACKAGES}:
            yield found


ERRORS = sorted(error_classes(), key=lambda error: (error.__module__, error.__name__))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{error.__module__}.{error.__name__}")
def test_an_error_class_has_the_status_and_title_of_its_problem_type(error: type[ServiceError]) -> None:
    described = problems.of(error.code)
    assert (error.status, error.title, error.retryable) == (
        described.status,
        described.title,
        described.retryable,
    )


def test_an_error_class_without_a_problem_type_cannot_be_defined() -> None:
    with pytest.raises(LookupError, match=r"'never-described' is not in contracts/problems\.toml"):
        type("NeverDescribed", (ServiceError,), {"code": "never-described"})


def test_an_error_class_cannot_say_again_what_its_problem_type_says() -> None:
    with pytest.raises(
        TypeError, match=r"sets \['status'\]; contracts/problems\.toml says that of not-found"
    ):
        type("SaidTwice", (ServiceError,), {"code": "not-found", "status": 404})


def test_every_problem_type_belongs_to_an_error_class() -> None:
    assert {error.code for error in ERRORS} == set(problems.CATALOGUE)


@pytest.mark.parametrize("problem", problems.CATALOGUE.values(), ids=lambda problem: problem.code)
def test_a_problem_type_says_in_sentences_what_happened_and_what_to_do(problem: ProblemType) -> None:
    assert 400 <= problem.status <= 599
    assert problem.meaning.endswith(".")
    assert problem.action.endswith(".")
    assert not problem.title.endswith(".")


def test_a_problem_that_is_transient_is_retryable() -> None:
    # What is between stock-data and its provider does not go away by itself, and no agent starts by itself.
    lasting = {"provider-blocked", "no-backup-agent"}
    unavailable = {code for code, problem in problems.CATALOGUE.items() if problem.status in (503, 504)}
    assert {code for code in unavailable if not problems.of(code).retryable} == lasting
