"""Switches one guard off in the processes that have this folder first in PYTHONPATH, before they begin.

Python imports a module of this name at its start. Nothing in the product offers such a switch.
"""

from __future__ import annotations

import os
import sys

if os.environ.get("FAULTS_UNGUARDED") and "-m" in sys.orig_argv:
    from faults import unguarding

    unguarding.switch_off(
        os.environ["FAULTS_UNGUARDED"], program=sys.orig_argv[sys.orig_argv.index("-m") + 1]
    )
