-- The roles and databases, made by the superuser at the first start on an empty volume, and never again: to change a
-- password later, ALTER ROLE it here and change .env.
--
--   temporal        Temporal's server: owns its two databases, and may read no other
--   holdfast_owner  `holdfast migrate`: owns Holdfast's tables, and makes holdfast_app
--   holdfast_app    the API and the worker: bound by row-level security; `holdfast migrate` makes it

\getenv temporal_password TEMPORAL_DB_PASSWORD
\getenv owner_password HOLDFAST_OWNER_PASSWORD

CREATE ROLE temporal LOGIN PASSWORD :'temporal_password';
CREATE DATABASE temporal OWNER temporal;
CREATE DATABASE temporal_visibility OWNER temporal;

CREATE ROLE holdfast_owner LOGIN CREATEROLE PASSWORD :'owner_password';
CREATE DATABASE holdfast OWNER holdfast_owner;

-- By default every role may connect to every database.
REVOKE ALL ON DATABASE postgres, temporal, temporal_visibility FROM PUBLIC;

-- Not marked as trusted: only a superuser can install it.
\connect holdfast
CREATE EXTENSION vector;
