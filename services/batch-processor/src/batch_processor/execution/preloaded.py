"""What the server has loaded from which processes of items are forked; nothing else imports this module."""

from __future__ import annotations

import gc

from chassis import lean

# As in the service itself.
with lean.without("pygments", "rich"):
    from batch_processor import operations
    from batch_processor.execution import item_process

__all__ = ["item_process"]

# Looking through what is installed takes longer than the fork. The operations themselves are not loaded: some
# start threads, which no fork has.
operations.installed()
# What is here is not looked at by the collectors of the forks, and so stays one memory for all of them.
gc.collect()
gc.freeze()
