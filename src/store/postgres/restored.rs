//! Assigns a new identity to a restored database.

use uuid::Uuid;

use super::{reply::redacted, target::Target, verify::existing};
use crate::{store::verify::Failed, token};

/// Assigns a new id to the database at `url`, so that existing cursors and page tokens are
/// rejected. Returns the location of the database.
pub async fn restored(url: &str) -> Result<String, Failed> {
    let target = Target::of(url)?;
    let mut session = existing(&target).await?;
    let change = async {
        let transaction = session.as_mut().transaction().await?;
        let identity = "SELECT store_id FROM store_identity FOR UPDATE";
        let id: Uuid = transaction.query_one(identity, &[]).await?.try_get(0)?;
        let id = token::restored(id);
        transaction.execute("UPDATE store_identity SET store_id = $1", &[&id]).await?;
        transaction.commit().await
    };
    let database = target.describe();
    match change.await {
        Ok(()) => Ok(database),
        Err(error) => Err(Failed::Change { database, reason: redacted(&error) }),
    }
}
