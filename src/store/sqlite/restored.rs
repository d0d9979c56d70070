//! Assigns a new identity to a restored file.

use std::path::Path;

use rusqlite::params;
use uuid::Uuid;

use super::{
    DatabaseFile, OpenError, connect, migrations, store_location,
    verify::{advice, schema_version},
};
use crate::{
    store::verify::{Failed, check_schema},
    token,
};

/// Assigns a new id to the file at `path`, so that existing cursors and page tokens are rejected.
/// Returns the location of the file. No service may have it open.
pub fn restored(path: &Path) -> Result<String, Failed> {
    let database = store_location(path);
    let unreachable =
        |reason: String| OpenError::Unreachable { database: database.clone(), reason };
    if !path.exists() {
        let reason = "file not found; choose another with --database-url or --data-dir";
        return Err(unreachable(reason.to_owned()).into());
    }
    let file = DatabaseFile::open(path).map_err(unreachable)?;
    let failed = |error: rusqlite::Error| Failed::Change {
        database: database.clone(),
        reason: advice(&error),
    };
    let mut connection = connect(file.path()).map_err(failed)?;
    let found = schema_version(&connection).map_err(failed)?;
    check_schema(found, migrations::migrations::runner().get_migrations(), &database)?;
    let mut change = || {
        let transaction = connection.transaction()?;
        let identity = "SELECT store_id FROM store_identity";
        let id: Uuid = transaction.query_row(identity, [], |row| row.get(0))?;
        let id = token::restored(id);
        transaction.execute("UPDATE store_identity SET store_id = ?1", params![id])?;
        transaction.commit()
    };
    change().map_err(failed)?;
    Ok(database)
}
