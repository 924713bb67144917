"""The rules that every alert and its runbook keep, and the verdict of promtool on them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from prometheus import build, objectives
from rabbitmq import definitions
from support import monitored, promtool
from support.monitored import PrometheusRule

RUNBOOKS = monitored.REPOSITORY / "docs" / "runbooks"
EXAMPLE = monitored.REPOSITORY / ".env.example"
CONTAINERS = monitored.REPOSITORY / "deploy" / "containers" / "prometheus" / "prometheus.yml"
ALERTMANAGER = monitored.REPOSITORY / "deploy" / "containers" / "alertmanager" / "alertmanager.yml"

ALERTS = monitored.alerts()
NAMES = sorted({alert.name for alert in ALERTS})
PAGES = sorted(RUNBOOKS.glob("Tickwire*.md"))


def test_building_again_changes_nothing() -> None:
    for path, text in build.files().items():
        assert path.read_text() == text, "run PYTHONPATH=deploy python -m prometheus.build"


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    promtool.run("check", "rules", *map(str, sorted(monitored.RULES.glob("*.yml"))))


def test_promtool_finds_nothing_wrong_with_the_configuration_of_the_containers() -> None:
    promtool.run("check", "config", "--syntax-only", str(CONTAINERS))


@pytest.mark.parametrize("file", sorted(monitored.RULE_TESTS.glob("*.yml")), ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    promtool.run("test", "rules", str(file))


@pytest.mark.parametrize("alert", NAMES)
def test_an_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    fires = {test.fires for test in monitored.rule_tests() if test.alert == alert}
    # The dead man's switch is the only one that is never silent.
    assert fires == ({True} if alert == "TickwireDeadMan" else {True, False})


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_says_how_urgent_it_is_what_happened_and_what_to_do(alert: PrometheusRule) -> None:
    assert alert.labels["severity"] in {"page", "ticket", "none"}
    assert set(alert.annotations) == {"summary", "description", "runbook_url"}
    assert not alert.annotations["summary"].endswith(".")
    assert alert.annotations["description"].endswith(".")
    address = f"{{{{ $externalLabels.gateway_url }}}}/docs/runbooks/{alert.name}"
    assert alert.annotations["runbook_url"] == address


def test_every_runbook_belongs_to_an_alert_and_is_in_the_list() -> None:
    assert [page.stem for page in PAGES] == NAMES
    listed = re.findall(r"\((Tickwire\w+)\.md\)", (RUNBOOKS / "README.md").read_text())
    assert sorted(listed) == NAMES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_has_its_four_parts_and_names_only_alerts_settings_and_files_that_exist(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert set(re.findall(r"\bTickwire[A-Z]\w+", text)) <= set(NAMES)
    variables = set(re.findall(r"\b(?:GATEWAY|STOCK_DATA|EMAIL|BATCH_PROCESSOR|POSTGRES)_[A-Z_]+\b", text))
    assert variables <= set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE))
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module) is not None
    for path in re.findall(r"`(deploy/[\w./-]+)`", text):
        assert (monitored.REPOSITORY / path).exists()


def test_every_metric_in_a_runbook_is_known() -> None:
    queries = " ".join([*monitored.panel_queries().values(), *(rule.expr for rule in monitored.rules())])
    for page in PAGES:
        for name in re.findall(r"\btickwire_[a-z_]+(?:_bucket|_total|_seconds)\b", page.read_text()):
            assert re.search(rf"\b{name}(_bucket)?\b", queries), f"{page.stem}: {name}"


@pytest.mark.parametrize("objective", objectives.OBJECTIVES, ids=lambda objective: objective.id)
def test_an_objective_is_recorded_over_every_window_under_the_names_that_sloth_gives(
    objective: objectives.Objective,
) -> None:
    mine = {rule.name for rule in monitored.rules() if rule.labels.get("sloth_id") == objective.id}
    windows = {f"slo:sli_error:ratio_rate{window}" for window in (*objectives.WINDOWS, "30d")}
    assert windows <= mine
    assert {"slo:objective:ratio", "slo:error_budget:ratio", "slo:current_burn_rate:ratio"} <= mine
    assert {"slo:period_burn_rate:ratio", "slo:period_error_budget_remaining:ratio", "sloth_slo_info"} <= mine
    burns = [alert.expr for alert in ALERTS if alert.name == objective.alert]
    assert [re.findall(r"> \(([\d.]+) \*", expr) for expr in burns] == [
        ["14.4", "14.4", "6", "6"],
        ["3", "3", "1", "1"],
    ]


@pytest.mark.parametrize("objective", objectives.OBJECTIVES, ids=lambda objective: objective.id)
def test_an_objective_has_a_test_with_too_few_events_and_one_with_enough(
    objective: objectives.Objective,
) -> None:
    tests = [test for test in monitored.rule_tests() if test.alert == objective.alert]
    assert {test.fires for test in tests if test.name.endswith("are too few for an alert")} == {False}
    assert {test.fires for test in tests if test.name.endswith("are enough for an alert")} == {True}


def test_a_queue_is_nearly_full_at_four_fifths_of_each_of_its_bounds() -> None:
    (limits,) = {
        (policy["definition"]["max-length"], policy["definition"]["max-length-bytes"])
        for policy in definitions.build()["policies"]
        if "max-length-bytes" in policy["definition"]
    }
    (expr,) = (alert.expr for alert in ALERTS if alert.name == "TickwireQueueNearlyFull")
    assert re.findall(r"/ (\S+|\(.*?\)) > (\S+)", expr) == [("1e6", "0.8"), ("(2 * 1024^3)", "0.8")]
    assert limits == (1e6, 2 * 1024**3)


def test_an_inhibition_names_only_existing_alerts() -> None:
    inhibitions = monitored.load(ALERTMANAGER)["inhibit_rules"]
    matchers = [m for rule in inhibitions for side in ("source", "target") for m in rule[f"{side}_matchers"]]
    for matcher in matchers:
        found = re.fullmatch(r'alertname =~? "(.+)"', matcher)
        if found is not None:
            group = re.fullmatch(r"Tickwire\((.+)\)", found[1])
            named = [f"Tickwire{end}" for end in group[1].split("|")] if group else [found[1]]
            assert set(named) <= set(NAMES)


def test_the_dead_mans_switch_pages_nobody_from_here() -> None:
    (route,) = monitored.load(ALERTMANAGER)["route"]["routes"]
    assert route["matchers"] == ['severity = "none"']
    assert [alert.name for alert in ALERTS if alert.labels["severity"] == "none"] == ["TickwireDeadMan"]
