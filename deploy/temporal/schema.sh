#!/bin/sh
# Brings Temporal's two databases to the schema of this version. Where to connect: SQL_HOST, SQL_USER, SQL_PASSWORD, …
set -eu

bring_up_to_date() {
  # Does nothing to a database that has a schema.
  temporal-sql-tool --database "$1" setup-schema --version 0.0
  temporal-sql-tool --database "$1" update-schema --schema-dir "/etc/temporal/schema/postgresql/v12/$2/versioned"
}

bring_up_to_date temporal temporal
bring_up_to_date temporal_visibility visibility
