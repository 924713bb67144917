"""The choice of tests: the short selection, or all of them with FAULTS_LONG=1."""

from __future__ import annotations

import os

IS_LONG = bool(os.environ.get("FAULTS_LONG"))
