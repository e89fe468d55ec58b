//! Connections: a pool of them, and what an error of the driver means to a caller.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postgres::Config;
use postgres::error::SqlState;
use r2d2_postgres::PostgresConnectionManager;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls;
use crate::error::DatabaseError;

/// How a database is reached.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// A URL, or `key=value` pairs.
    pub url: String,
    /// A file that holds the password alone.
    pub password_file: Option<PathBuf>,
    /// `verify-full` or `off`; by where the server is if not given.
    pub tls: Option<String>,
    /// Certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How many connections at most.
    pub pool_size: u32,
}

pub(super) type Manager = PostgresConnectionManager<MakeRustlsConnect>;
pub(super) type Pooled = r2d2::PooledConnection<Manager>;

/// A database that can be asked.
#[derive(Clone)]
pub struct Database {
    pool: r2d2::Pool<Manager>,
    config: Arc<Config>,
    connector: MakeRustlsConnect,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver leaves out the password.
        f.debug_struct("Database").field("config", &self.config).finish_non_exhaustive()
    }
}

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Database {
    /// Connects, so that a wrong password is told at once. Waits for an answer.
    pub fn connect(connection: &Connection) -> Result<Self, DatabaseError> {
        let (url, mode) = without_mode(&connection.url);
        let mut config: Config = url.parse().map_err(|error: postgres::Error| {
            // What the driver says of the text may repeat it, with the password.
            let kind = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            DatabaseError::unfit(format!("database.url cannot be used: {kind}"))
        })?;
        if let Some(file) = &connection.password_file {
            let unfit = |error| DatabaseError::unfit(format!("database.password_file {}: {error}", file.display()));
            let password = std::fs::read_to_string(file).map_err(unfit)?;
            let password = password.trim_end_matches(['\r', '\n']);
            // An empty one stands for none: credentials of a service may be left empty.
            if !password.is_empty() {
                config.password(password);
            }
        }
        let protection = tls::decide(config.get_hosts(), mode.as_deref(), connection.tls.as_deref())?;
        config.ssl_mode(protection.mode());
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("des-migrate");
        }
        let connector = tls::connector(protection, connection.ca_file.as_deref())?;
        let manager = PostgresConnectionManager::new(config.clone(), connector.clone());
        let pool = r2d2::Pool::builder()
            .max_size(connection.pool_size.max(1))
            .min_idle(Some(0))
            .connection_timeout(CONNECT_TIMEOUT)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(manager);
        let database = Self { pool, config: Arc::new(config), connector };
        drop(database.alone("connecting")?);
        Ok(database)
    }

    /// A connection of the pool.
    pub(super) fn get(&self) -> Result<Pooled, DatabaseError> {
        self.pool.get().map_err(|error| DatabaseError::Away { doing: "connecting", source: Box::new(error) })
    }

    /// A connection of its own.
    pub(super) fn alone(&self, doing: &'static str) -> Result<postgres::Client, DatabaseError> {
        self.config.connect(self.connector.clone()).map_err(failed(doing))
    }
}

/// Takes `sslmode` out of a URL or of `key=value` pairs: the driver knows fewer modes than libpq.
fn without_mode(url: &str) -> (String, Option<String>) {
    let Some(at) = url.find("sslmode=") else { return (url.to_owned(), None) };
    let (head, tail) = url.split_at(at);
    let value = tail.get("sslmode=".len()..).unwrap_or_default();
    let end = value.find(['&', ' ']).unwrap_or(value.len());
    let (mode, rest) = value.split_at(end);
    let rest = if head.ends_with(['?', '&', ' ']) { rest.trim_start_matches('&') } else { rest };
    (format!("{head}{rest}").trim_end_matches(['?', '&']).to_owned(), Some(mode.trim_matches('\'').to_owned()))
}

/// What an error of the driver means.
pub(super) fn failed(doing: &'static str) -> impl Fn(postgres::Error) -> DatabaseError {
    move |error| {
        let is_away = error.is_closed() || error.code().is_none_or(is_transient);
        // Without a code it never came to an answer; but a value that cannot be converted will never be.
        let is_ours = error.code().is_none() && std::error::Error::source(&error).is_some_and(is_conversion);
        if is_away && !is_ours {
            DatabaseError::Away { doing, source: Box::new(error) }
        } else {
            DatabaseError::Refused { doing, source: Box::new(error) }
        }
    }
}

fn is_conversion(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<std::io::Error>().is_none()
        && cause.downcast_ref::<rustls::Error>().is_none()
        && cause.downcast_ref::<postgres::Error>().is_none()
}

/// True for what a server says while it starts, stops, or changes its role, and for transactions that collided.
fn is_transient(code: &SqlState) -> bool {
    let code = code.code();
    // Connection exceptions; shutdown and startup; collisions; a standby that is written to.
    code.starts_with("08") || code.starts_with("57P0") || matches!(code, "40001" | "40P01" | "53300" | "25006")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_taken_out_of_a_url_and_nothing_else() {
        for (url, left, mode) in [
            ("postgres://u@h/d", "postgres://u@h/d", None),
            ("postgres://u@h/d?sslmode=verify-full", "postgres://u@h/d", Some("verify-full")),
            ("postgres://u@h/d?sslmode=require&a=b", "postgres://u@h/d?a=b", Some("require")),
            ("postgres://u@h/d?a=b&sslmode=disable&c=d", "postgres://u@h/d?a=b&c=d", Some("disable")),
            ("host=h sslmode=prefer user=u", "host=h  user=u", Some("prefer")),
        ] {
            assert_eq!(without_mode(url), (left.to_owned(), mode.map(str::to_owned)), "{url}");
        }
    }

    #[test]
    fn what_a_restart_or_a_failover_says_is_tried_again_and_a_refusal_is_not() {
        for code in ["57P01", "57P02", "57P03", "08006", "40001", "25006"] {
            assert!(is_transient(&SqlState::from_code(code)), "{code}");
        }
        for code in ["28P01", "42P01", "42501", "23505", "57014"] {
            assert!(!is_transient(&SqlState::from_code(code)), "{code}");
        }
    }

    #[test]
    fn a_url_that_makes_no_sense_is_told_without_its_password() {
        let connection = Connection { url: "postgres://u:hush@h:port/d".to_owned(), ..Connection::default() };
        let error = Database::connect(&connection).unwrap_err().to_string();
        assert!(error.starts_with("database.url cannot be used") && !error.contains("hush"), "{error}");
    }
}
