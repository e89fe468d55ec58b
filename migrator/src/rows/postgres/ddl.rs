//! The tables of state.

use super::name::Identifier;

/// The names of the tables of state, with their schema.
#[derive(Debug, Clone)]
pub(super) struct StateNames {
    prefix: String,
}

impl StateNames {
    pub(super) fn new(schema: Option<&Identifier>) -> Self {
        Self { prefix: schema.map(|schema| format!("{schema}.")).unwrap_or_default() }
    }

    /// Puts the schema before each table that stands in braces.
    pub(super) fn sql(&self, text: &str) -> String {
        let mut sql = text.to_owned();
        for (short, table) in [
            ("{config}", "des_archive_config"),
            ("{day}", "des_migration_day"),
            ("{receipt}", "des_migration_receipt"),
            ("{exception}", "des_migration_exception"),
            ("{cleanup}", "des_cleanup"),
        ] {
            sql = sql.replace(short, &format!("{}{table}", self.prefix));
        }
        sql
    }
}

const TABLES: &str = "\
-- How far the archive is: every row before archived_until is readable in it, was deleted there, or is an exception that
-- somebody has acknowledged.
CREATE TABLE IF NOT EXISTS {config} (
    singleton      boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    archived_until timestamptz,
    planned_until  timestamptz,
    lag_days       integer NOT NULL CHECK (lag_days >= 0),
    archive        text
);

-- The days that have rows. Whole days are claimed; the epoch of a claim guards every later change.
CREATE TABLE IF NOT EXISTS {day} (
    day         date PRIMARY KEY,
    state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'claimed', 'blocked', 'finished')),
    worker      text,
    epoch       bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    files       bigint NOT NULL DEFAULT 0,
    packed      bigint NOT NULL DEFAULT 0,
    present     bigint NOT NULL DEFAULT 0,
    deleted     bigint NOT NULL DEFAULT 0,
    exceptions  bigint NOT NULL DEFAULT 0,
    bytes       bigint NOT NULL DEFAULT 0,
    finished_at timestamptz
);
CREATE INDEX IF NOT EXISTS des_migration_day_open ON {day} (day) WHERE state <> 'finished';

-- What was packed and read back.
CREATE TABLE IF NOT EXISTS {receipt} (
    day         date NOT NULL,
    input_hash  bytea NOT NULL,
    shards      jsonb NOT NULL,
    n_files     bigint NOT NULL,
    bytes       bigint NOT NULL,
    uid_digest  bytea NOT NULL,
    verified_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, input_hash)
);

-- Rows that could not be moved, and sources that could not be removed.
CREATE TABLE IF NOT EXISTS {exception} (
    uid_hash   bytea NOT NULL,
    created_at timestamptz NOT NULL,
    stage      text NOT NULL,
    uid        text NOT NULL,
    day        date,
    kind       text NOT NULL,
    reason     text NOT NULL,
    source     text NOT NULL,
    n_rows     bigint NOT NULL DEFAULT 1,
    epoch      bigint NOT NULL DEFAULT 0,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen  timestamptz NOT NULL DEFAULT now(),
    acked_by   text,
    acked_at   timestamptz,
    PRIMARY KEY (uid_hash, created_at, stage)
);
CREATE INDEX IF NOT EXISTS des_migration_exception_day ON {exception} (day, stage);

-- Days whose sources were removed, or are being.
CREATE TABLE IF NOT EXISTS {cleanup} (
    day         date PRIMARY KEY,
    state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'claimed', 'done')),
    worker      text,
    epoch       bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    n           bigint NOT NULL DEFAULT 0,
    bytes       bigint NOT NULL DEFAULT 0,
    kept        bigint NOT NULL DEFAULT 0,
    at          timestamptz
);
";

/// The statements that make the tables of state; safe to run again.
pub fn ddl(schema: Option<&Identifier>) -> String {
    let schema_line = schema.map(|schema| format!("CREATE SCHEMA IF NOT EXISTS {schema};\n\n")).unwrap_or_default();
    schema_line + &StateNames::new(schema).sql(TABLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_stand_in_their_schema() {
        let text = ddl(Some(&Identifier::new("My Schema").unwrap()));
        assert!(text.contains("CREATE TABLE IF NOT EXISTS \"My Schema\".des_cleanup ("), "{text}");
        assert!(!text.contains('{'), "{text}");
        assert!(ddl(None).contains("CREATE TABLE IF NOT EXISTS des_archive_config ("));
    }
}
