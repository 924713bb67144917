"""Rules about replies that an operator adds."""

from __future__ import annotations

import pytest

from emailer.sending import outcomes, own_rules
from emailer.sending.outcomes import SmtpAnswer, SmtpReply, Stage, Verdict

RULES = outcomes.with_own(
    own_rules.read(
        '[{"name": "slow down", "stages": ["recipient"], "codes": ["45x"], "says": "slow", "then": "pause"},'
        ' {"name": "never", "codes": ["4xx"], "then": "fail"}]'
    )
)


@pytest.mark.parametrize(
    ("code", "text", "stage", "verdict"),
    [
        (451, "Slow down", "recipient", "limited"),
        (451, "Slow down", "data", "failed"),
        (461, "slow", "recipient", "failed"),
        (550, "5.1.1 no such user", "recipient", "failed"),
        (250, "taken", "content", "delivered"),
    ],
)
def test_the_first_rule_that_matches_counts(code: int, text: str, stage: Stage, verdict: Verdict) -> None:
    assert outcomes.rule_of(SmtpAnswer(SmtpReply(code, text), stage), RULES).verdict == verdict


def test_without_rules_of_their_own_nothing_changes() -> None:
    assert own_rules.read(" ") == ()
    assert outcomes.with_own(()) == outcomes.RULES


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Invalid JSON"),
        ("{}", "must be a list"),
        ('[{"name": "a", "then": "fail"}]', "0.codes"),
        ('[{"name": "a", "codes": [], "then": "fail"}]', "0.codes"),
        ('[{"name": "a", "codes": ["250"], "then": "fail"}]', "0.codes.0"),
        ('[{"name": "a", "codes": ["550"], "then": "deliver"}]', "0.then"),
        ('[{"name": "a", "codes": ["550"], "says": "(", "then": "fail"}]', "0.says"),
        ('[{"name": "a", "codes": ["550"], "stages": ["greeting"], "then": "fail"}]', "0.stages.0"),
        ('[{"name": "a", "codes": ["550"], "colour": "red", "then": "fail"}]', "0.colour"),
    ],
)
def test_an_invalid_rule_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        own_rules.read(text)
