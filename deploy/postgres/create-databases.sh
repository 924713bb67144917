#!/bin/sh
# Runs once, when the data directory is created: makes a role and a database of the same name for each service, closed
# to the others, and the role `metrics`, which may only read statistics. Passwords come from files.
set -eu

secret() { cat "/run/secrets/postgres-password-$1"; }

query() { psql --quiet --no-psqlrc -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres "$@"; }

for role in gateway stock_data emailer batch_processor; do
    query -v role="$role" -v password="$(secret "$role")" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"role" OWNER :"role";
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
SQL
done

query -v password="$(secret metrics)" <<'SQL'
CREATE ROLE metrics LOGIN PASSWORD :'password' IN ROLE pg_monitor;
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO metrics;
SQL
