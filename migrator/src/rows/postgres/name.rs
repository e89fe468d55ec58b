//! Names of tables and columns: configured, so quoted and never pasted.

use std::fmt;

/// A name as SQL writes it. Whatever it holds, it stays one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifier(String);

/// PostgreSQL cuts longer names, so that another one could be meant.
const NAME_BYTES_MAX: usize = 63;

impl Identifier {
    /// Takes a name as it is in the catalogue.
    pub fn new(name: &str) -> Result<Self, String> {
        if name.is_empty() {
            return Err("a name is needed, this one is empty".to_owned());
        }
        if name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err(format!("{name:?} is no name: at most {NAME_BYTES_MAX} bytes and no NUL"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The bare name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// A table or view, with its schema where one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) schema: Option<Identifier>,
    pub(super) name: Identifier,
}

impl Relation {
    /// `SCHEMA.NAME` or `NAME`; only the first point divides.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Ok(match text.split_once('.') {
            Some((schema, name)) => Self { schema: Some(Identifier::new(schema)?), name: Identifier::new(name)? },
            None => Self { schema: None, name: Identifier::new(text)? },
        })
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => self.name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_name_whatever_it_holds() {
        for (name, quoted) in [
            ("files", "\"files\""),
            ("Created At", "\"Created At\""),
            ("a\"; DROP TABLE files; --", "\"a\"\"; DROP TABLE files; --\""),
            ("\"", "\"\"\"\""),
        ] {
            assert_eq!(Identifier::new(name).unwrap().to_string(), quoted);
        }
    }

    #[test]
    fn what_the_server_would_cut_or_refuse_is_no_name() {
        for name in ["", "a\0b", &"x".repeat(64)] {
            assert!(Identifier::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_table_may_have_a_schema() {
        assert_eq!(Relation::parse("app.files").unwrap().to_string(), "\"app\".\"files\"");
        assert_eq!(Relation::parse("files").unwrap().to_string(), "\"files\"");
        assert!(Relation::parse(".files").is_err());
    }
}
