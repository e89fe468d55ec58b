-- Where a file is below a mount of DES, for PostgreSQL: the same as `desfs path UID CREATED_AT`.
--
--     SELECT '/mnt/archive/' || des_path(uid, created_at) FROM files WHERE ...;
--
-- NULL where the path cannot be told from these two alone, or there can be no such file:
--   - the name is longer than 255 bytes once encoded: it is shown cut, and ends in a hash that depends on the archive
--     (`desfs path --archive SOURCE` tells it; the whole uid is in the extended attribute user.des.uid);
--   - the uid is empty or NULL, or created_at is NULL, infinite, or not within the years 1 to 9999.
-- That a path is told does not mean that the file is there.
--
-- Immutable, so it can stand in an index or a generated column. The day is that of UTC, whatever TimeZone is set to; in
-- an archive that the Python ancestor wrote it is the day in the zone that created_at was written with, which the
-- database does not know. docs/semantics.md specifies the encoding; UTF-8 is assumed for the database.

CREATE OR REPLACE FUNCTION des_path(uid text, created_at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    WITH escaped AS (
        SELECT
            CASE uid
                WHEN '' THEN NULL
                WHEN '.' THEN '%2E'
                WHEN '..' THEN '%2E%2E'
                ELSE replace(replace(uid, '%', '%25'), '/', '%2F')
            END AS name,
            CASE
                WHEN created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
                THEN created_at AT TIME ZONE 'UTC'
            END AS utc
    ), told AS (
        SELECT
            CASE
                -- Shaped like a name that was cut: the tilde is escaped, where there is room.
                WHEN octet_length(name) >= 252 AND name ~ '~[0-9A-F]{4}-[0-9a-f]{16}$'
                THEN overlay(name PLACING '%7E' FROM length(name) - 21 FOR 1)
                ELSE name
            END AS name,
            lpad(extract(year FROM utc)::integer::text, 4, '0')
                || lpad(extract(month FROM utc)::integer::text, 2, '0')
                || lpad(extract(day FROM utc)::integer::text, 2, '0') AS day
        FROM escaped
    )
    SELECT CASE WHEN octet_length(name) <= 255 THEN day || '/' || name END FROM told
);
