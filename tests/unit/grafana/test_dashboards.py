"""The rules that every dashboard keeps; `monitored` and `tests/integration/monitoring` prove its queries."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from grafana import build, reference, rendering
from grafana.boards import BOARDS
from support import monitored, promtool

FILES = sorted(build.FOLDER.glob("*.json"))
DATASOURCES = monitored.REPOSITORY / "deploy/containers/grafana/provisioning/datasources/datasources.yaml"

NAMES = {
    "overview", "gateway", "stock-data", "email", "batch-processor",
    "messaging", "runtime-and-pools", "realtime", "postgres-and-cache",
}  # fmt: skip


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(request.param.read_text())
    return document


def test_building_again_changes_nothing() -> None:
    for path, text in build.files().items():
        assert path.read_text() == text, f"{path.name}: run PYTHONPATH=deploy python -m grafana.build"
    assert {file.stem for file in FILES} == NAMES


def test_addresses_and_titles_are_used_once() -> None:
    assert len({board.uid for board in BOARDS}) == len({board.title for board in BOARDS}) == len(BOARDS)


def test_the_dashboards_are_those_that_the_code_builds(dashboard: dict[str, Any]) -> None:
    assert dashboard["editable"] is False
    assert dashboard["uid"].startswith("tickwire-")
    assert dashboard["description"]


def test_every_panel_is_a_graph_over_time_that_says_what_it_shows(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert {panel["type"] for panel in panels} == {"timeseries"}
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_a_legend_does_not_keep_the_last_value_of_a_series_that_ended(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        assert panel["options"]["legend"]["calcs"] == ["last", "max"]


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_query_goes_to_the_chosen_datasource_and_names_its_series(dashboard: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == rendering.DATASOURCE_UID
    for panel in dashboard["panels"]:
        for target in (panel, *panel["targets"]):
            assert target["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]
            buckets = set(re.findall(r"\b\w+_bucket\b", target["expr"]))
            assert target["exemplar"] is bool(buckets & reference.traced()), panel["title"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {*variables, "__rate_interval"}


def test_every_rate_has_the_interval_that_the_scrapes_need(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expr = re.sub(r'"[^"]*"', "", target["expr"])
            ranges = re.findall(r"\[([^\]]+)\]", expr)
            assert set(ranges) <= {"$__rate_interval"}, panel["title"]
            assert len(ranges) == len(re.findall(r"\b(?:rate|increase|irate|delta)\(", target["expr"]))


def test_every_series_of_a_panel_can_be_distinguished(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(legends)) == len(legends), panel["title"]
        for target in panel["targets"]:
            grouped = re.match(
                r"(?:sum|max|min) by \(([^)]+)\) \((?:rate\()?[\w:]+(?:\{[^}]*\})?[^/*+]*$", target["expr"]
            )
            if grouped:
                labels = {label.strip() for label in grouped[1].split(",")}
                assert labels == set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])), panel["title"]


def test_one_dashboard_leads_to_all_others(dashboard: dict[str, Any]) -> None:
    others = {f"/d/tickwire-{name}" for name in NAMES} - {f"/d/{dashboard['uid']}"}
    assert {link["url"] for link in dashboard["links"]} == others


def test_the_datasource_has_the_address_that_is_provisioned() -> None:
    found = {source["uid"]: source for source in monitored.load(DATASOURCES)["datasources"]}
    prometheus = found[rendering.DATASOURCE_UID]
    assert prometheus["type"] == "prometheus"
    (destination,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert destination["name"] == "trace_id"
    assert destination["datasourceUid"] in found


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [
        {
            "record": f"query:{number}",
            "expr": query.replace("$__rate_interval", "1m").replace("$service", ".*"),
        }
        for number, query in enumerate(monitored.panel_queries().values())
    ]
    file = tmp_path / "queries.json"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    promtool.run("check", "rules", str(file))
