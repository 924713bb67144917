"""What the routes of the gateway are for: paths are compared with them."""

from __future__ import annotations

import pytest

from support import declared_gateway


def test_a_path_leads_to_its_route_and_no_address_is_built_from_one() -> None:
    routes = declared_gateway.create().url_map.bind("gateway")
    name, parameters = routes.match("/v1/stocks/AAPL", method="GET")
    assert parameters == {"symbol": "AAPL"}
    with pytest.raises(RuntimeError, match="not built from routes"):
        routes.build(name, parameters)
