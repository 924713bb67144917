"""Whole numbers in paths: each has one way to be written."""

from __future__ import annotations

from werkzeug.routing import IntegerConverter


class PathNumber(IntegerConverter):
    """The parts of paths that are declared as `<int:…>`.

    Werkzeug's own takes leading zeros and the digits of every script: the path rules of a proxy in front
    would not know them for the same number.
    """

    regex = "(?:0|[1-9][0-9]{0,18})"
