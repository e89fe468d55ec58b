//! PostgreSQL: the source table and the tables of state. The one place that knows the driver.

mod claims;
mod connection;
mod ddl;
mod exceptions;
mod marks;
mod name;
mod plan;
mod scan;
mod state;
mod tls;
mod values;

pub use connection::{Connection, Database};
pub use ddl::ddl;
pub use name::Identifier;
pub use plan::ScanPlan;
pub use scan::{PostgresRows, Table, TimeZoneOf};
pub use state::PostgresState;
