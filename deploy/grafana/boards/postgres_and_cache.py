"""PostgreSQL and memcached, by their exporters, and the cache as the services see it."""

from __future__ import annotations

from grafana.panels import Dashboard, Query, panel, share
from grafana.promql import part, quantile, rate

_DATABASES = 'datname=~"gateway|stock_data|emailer|batch_processor"'

_HIT = rate("pg_stat_database_blks_hit", "datname", where=_DATABASES)
_READ = rate("pg_stat_database_blks_read", "datname", where=_DATABASES)

BOARD = Dashboard(
    uid="postgres-and-cache",
    title="PostgreSQL and cache",
    description="The databases and the cache; panels of memcached are empty where no exporter runs.",
    panels=(
        panel(
            "PostgreSQL up",
            "1 while the exporter reaches the server.",
            "short",
            Query("max by (instance) (pg_up)", "{{instance}}"),
        ),
        panel(
            "Connections",
            "Connections by database, and the limit.",
            "short",
            Query(f"sum by (datname) (pg_stat_database_numbackends{{{_DATABASES}}})", "{{datname}}"),
            Query("max(pg_settings_max_connections)", "most"),
        ),
        panel(
            "Transactions",
            "Commits and rollbacks per second.",
            "ops",
            Query(
                rate("pg_stat_database_xact_commit", "datname", where=_DATABASES).expr, "{{datname}} commit"
            ),
            Query(
                rate("pg_stat_database_xact_rollback", "datname", where=_DATABASES).expr,
                "{{datname}} rollback",
            ),
        ),
        share(
            "Buffer hits",
            "Share of the pages that were found in memory.",
            Query(
                f"{_HIT.expr} / ({_HIT.expr} + {_READ.expr})",
                "{{datname}}",
            ),
        ),
        panel(
            "Deadlocks",
            "Deadlocks per second.",
            "ops",
            rate("pg_stat_database_deadlocks", "datname", where=_DATABASES),
        ),
        panel(
            "Size",
            "Size of each database.",
            "bytes",
            Query(f"max by (datname) (pg_database_size_bytes{{{_DATABASES}}})", "{{datname}}"),
        ),
        panel(
            "Age of the last backup",
            "Time since the last complete backup began; empty if there is none.",
            "s",
            Query("max(time() - (tickwire_last_backup_timestamp_seconds > 0))", "age"),
        ),
        panel(
            "Wait for a connection",
            "Time to get a connection from the services' pools, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_postgres_acquire_seconds", "service"),
        ),
        panel(
            "Cache look-ups",
            "Look-ups by the services per second, by outcome.",
            "ops",
            rate("tickwire_cache_reads_total", "service", "cache", "outcome"),
        ),
        share(
            "Cache hits",
            "Share of the look-ups that found a value.",
            part('tickwire_cache_reads_total{outcome="hit"}', "tickwire_cache_reads_total", "cache"),
        ),
        panel(
            "memcached up",
            "1 while the exporter reaches the server.",
            "short",
            Query("max by (instance) (memcached_up)", "{{instance}}"),
        ),
        panel(
            "memcached: memory",
            "Bytes of items, and the limit.",
            "bytes",
            Query("sum(memcached_current_bytes)", "items"),
            Query("sum(memcached_limit_bytes)", "most"),
        ),
        panel(
            "memcached: items",
            "Stored items, and items evicted per second to make room.",
            "short",
            Query("sum(memcached_current_items)", "items"),
            Query(rate("memcached_items_evicted_total").expr, "evicted"),
        ),
        panel(
            "memcached: commands",
            "Commands per second.",
            "ops",
            rate("memcached_commands_total", "command", "status"),
        ),
    ),
)
