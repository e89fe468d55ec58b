//! The statements that read the source table, and what the catalogue says of it.

use super::super::connection::{Database, failed};
use super::super::name::Identifier;
use crate::error::DatabaseError;

/// The statements, made once.
#[derive(Debug)]
pub(super) struct Sql {
    pub(super) first: String,
    /// Pages of rows that are not marked as archived.
    pub(super) waiting: PageSql,
    /// Pages of all rows.
    pub(super) all: PageSql,
    pub(super) nameless: String,
    pub(super) undated: String,
    pub(super) mark: Option<String>,
    pub(super) relation: String,
    pub(super) time: String,
    pub(super) size: Option<String>,
    pub(super) condition: String,
}

/// The statements that read pages.
#[derive(Debug)]
pub(super) struct PageSql {
    pub(super) first: String,
    pub(super) next: String,
}

impl Sql {
    pub(super) fn new(
        relation: &str,
        (uid, time): (&Identifier, &Identifier),
        columns: &str,
        filter: String,
        size: Option<&str>,
        archived: Option<&Identifier>,
    ) -> Self {
        let quoted = |name: &str| Identifier::new(name).map(|name| name.to_string()).unwrap_or_default();
        let from = format!("FROM {relation} WHERE");
        let pages = |condition: &str| {
            let order = format!("ORDER BY {time}, {uid} LIMIT");
            PageSql {
                first: format!(
                    "SELECT {columns} {from} {time} >= $1 AND {time} < $2 AND {uid} IS NOT NULL{condition} {order} $3"
                ),
                next: format!(
                    "SELECT {columns} {from} ({time}, {uid}) > ($1, $2) AND {time} < $3{condition} {order} $4"
                ),
            }
        };
        let all = pages(&filter);
        let condition = match archived {
            Some(archived) => format!("{filter} AND {archived} IS NOT TRUE"),
            None => filter,
        };
        Self {
            first: format!("SELECT {time} {from} {time} >= $1 AND {time} < $2{condition} ORDER BY {time} LIMIT 1"),
            waiting: pages(&condition),
            all,
            nameless: format!(
                "SELECT {time}, count(*) {from} {time} >= $1 AND {time} < $2 AND {uid} IS NULL{condition} GROUP BY 1"
            ),
            undated: format!(
                "SELECT count(*) {from} ({time} IS NULL OR {time} < $1 OR {time} = 'infinity'){condition}"
            ),
            mark: archived.map(|archived| {
                format!(
                    "UPDATE {relation} SET {archived} = true \
                     WHERE {time} = $1 AND {uid} = $2 AND {archived} IS NOT TRUE"
                )
            }),
            relation: relation.to_owned(),
            time: time.to_string(),
            size: size.map(quoted),
            condition,
        }
    }
}

/// What the catalogue says of a column.
pub(super) struct Column {
    pub(super) ty: String,
    pub(super) may_be_null: bool,
}

/// Asks the catalogue for a column of a table.
pub(super) fn column(
    database: &Database,
    relation: &str,
    what: &str,
    name: &Identifier,
) -> Result<Column, DatabaseError> {
    let doing = "looking at the source table";
    let mut client = database.get()?;
    let table = client.query_one("SELECT to_regclass($1)::oid", &[&relation]).map_err(failed(doing))?;
    let Some(table) = table.get::<_, Option<u32>>(0) else {
        return Err(DatabaseError::unfit(format!("there is no table {relation}, or this role may not see it")));
    };
    let found = client
        .query_opt(
            "SELECT format_type(atttypid, NULL), NOT attnotnull FROM pg_attribute \
             WHERE attrelid = $1 AND attname = $2 AND attnum > 0 AND NOT attisdropped",
            &[&table, &name.name()],
        )
        .map_err(failed(doing))?;
    let Some(found) = found else {
        return Err(DatabaseError::unfit(format!("{relation} has no column {name} (database.{what})")));
    };
    Ok(Column { ty: found.get(0), may_be_null: found.get(1) })
}

/// A JSON value as its text.
pub(super) struct Json(pub(super) String);

impl<'a> postgres::types::FromSql<'a> for Json {
    fn from_sql(_: &postgres::types::Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(str::from_utf8(raw)?.to_owned()))
    }

    fn accepts(ty: &postgres::types::Type) -> bool {
        *ty == postgres::types::Type::JSON
    }
}
