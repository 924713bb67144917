"""The frames between the service and its processes that render: a length and that many bytes of JSON."""

from __future__ import annotations

import struct

LENGTH = struct.Struct(">I")
MOST_FRAME = 8 << 20
