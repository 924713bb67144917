"""Boards as Grafana's JSON: fixed ids, a grid of three columns, not editable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana import reference
from grafana.panels import Dashboard, Panel, Query

DATASOURCE_UID = "prometheus"

_COLUMNS = 3
_WIDTH, _HEIGHT = 24 // _COLUMNS, 8
_TRACED = reference.traced()
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

_ALERTS = {
    "name": "Firing alerts",
    "datasource": _SOURCE,
    "enable": True,
    "iconColor": "red",
    "expr": 'ALERTS{alertstate="firing", severity!="none"}',
    "titleFormat": "{{alertname}}",
    "textFormat": "{{service}}",
    "step": "30s",
}


def dashboard(board: Dashboard, others: Sequence[Dashboard]) -> dict[str, Any]:
    """Return the whole JSON of `board`, with links to `others`."""
    return {
        "uid": f"tickwire-{board.uid}",
        "title": board.title,
        "description": board.description,
        "tags": ["tickwire"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables(board)},
        "links": [
            {
                "type": "link",
                "title": other.title,
                "tooltip": other.description,
                "url": f"/d/tickwire-{other.uid}",
                "icon": "dashboard",
                "keepTime": True,
                "includeVars": False,
                "targetBlank": False,
            }
            for other in others
            if other is not board
        ],
        "annotations": {"list": [_ALERTS]},
        "panels": [_panel(panel, number) for number, panel in enumerate(board.panels)],
    }


def _variables(board: Dashboard) -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {"text": "Prometheus", "value": DATASOURCE_UID},
        "hide": 0,
    }
    service = {
        "name": "service",
        "label": "Service",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(tickwire_build_info, service)", "refId": "services"},
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }
    return [source, service] if board.per_service else [source]


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": {
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                # "last" shows no value for a series that is gone; "lastNotNull" would show an old one.
                "calcs": ["last", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [_target(query, index) for index, query in enumerate(panel.queries)],
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    axis: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        axis["max"] = panel.most
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
    }
    return {**axis, "color": {"mode": "palette-classic"}, "custom": custom}


def _target(query: Query, index: int) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + index),
        "datasource": _SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
        "range": True,
        "instant": False,
        "exemplar": any(name in query.expr for name in _TRACED),
    }
