//! Giving a restored database an identity of its own.

use uuid::Uuid;

use super::{
    OpenError, chain, open,
    schema::{self, Schemas},
    session::Target,
    verify::schema_version,
};
use crate::{
    store::verify::{Failed, check_schema},
    token,
};

/// Gives the database at `url` another id, so that cursors and page tokens made before are refused. Says
/// where the database is.
pub async fn restored(url: &str) -> Result<String, Failed> {
    let target = Target::of(url)?;
    let database = target.describe();
    let mut session = target.connect().await.map_err(|error| OpenError::Unreachable {
        database: database.clone(),
        reason: error.advice(),
    })?;
    open::check_server(&session, &database).await?;
    let failed = |error: tokio_postgres::Error| Failed::Change {
        database: database.clone(),
        reason: chain(&error),
    };
    let schemas = Schemas::look(&session, &database).await?;
    let found = match schemas.existing(&database)? {
        Some(schema) => {
            schema::pin(&session, schema).await.map_err(failed)?;
            schema_version(&session).await.map_err(failed)?
        }
        None => None,
    };
    check_schema(found, &open::migrations(), &database)?;
    let change = async {
        let transaction = session.as_mut().transaction().await?;
        let identity = "SELECT store_id FROM store_identity FOR UPDATE";
        let id: Uuid = transaction.query_one(identity, &[]).await?.try_get(0)?;
        let id = token::restored(id);
        transaction.execute("UPDATE store_identity SET store_id = $1", &[&id]).await?;
        transaction.commit().await
    };
    change.await.map_err(failed)?;
    Ok(database)
}
