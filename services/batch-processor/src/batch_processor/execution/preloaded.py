"""The modules of the server from which item processes are forked; nothing else imports this one."""

from __future__ import annotations

import gc

from chassis import lean

# As in the service itself.
with lean.without("pygments", "rich"):
    from batch_processor import operations
    from batch_processor.execution import forks, item_process
    from chassis import allocator

__all__ = ["item_process"]

# Searching the installed packages takes longer than the fork. The operations themselves are not loaded: some
# start threads, which a fork does not inherit.
operations.installed()
# The garbage collectors of the forks leave these objects alone, so all forks share their memory.
gc.collect()
gc.freeze()
# The forks inherit this, too.
allocator.limit_arenas()
forks.serve()
