"""Whole numbers in paths, each with a single spelling."""

from __future__ import annotations

from werkzeug.routing import IntegerConverter


class PathNumber(IntegerConverter):
    """The parts of paths that are declared as `<int:…>`.

    Werkzeug's own converter accepts leading zeros and the digits of every script, which the path rules of a
    proxy in front would not recognise as the same number.
    """

    regex = "(?:0|[1-9][0-9]{0,18})"
