-- SQLite's functions that the books use, for PostgreSQL: with them both speak the same SQL.

CREATE FUNCTION json_each(text) RETURNS TABLE (value jsonb) LANGUAGE sql IMMUTABLE ROWS 100 AS 'SELECT jsonb_array_elements($1::jsonb)';
CREATE FUNCTION hex(bytea) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT encode($1, ''hex'')';
CREATE FUNCTION unhex(text) RETURNS bytea LANGUAGE sql IMMUTABLE AS 'SELECT decode($1, ''hex'')';
