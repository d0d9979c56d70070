//! Faults of the store's identity: another store or none in its place for a while.

use std::{path::Path, time::Duration};

use tokio::time::sleep;

use super::database::heal;
use crate::{database::Database, round::Round};

/// Replaces the store of running services with another, empty one, or moves its file away. Events
/// that were acknowledged in the meantime would be lost.
pub(super) async fn swap(round: &Round, lasting: Duration) -> Result<(), String> {
    // A service that started in the meantime would correctly open the other store.
    let mut held = Vec::new();
    for instance in &round.cluster.instances {
        held.push(instance.hold().await);
    }
    match &round.database {
        Database::Sqlite(path) => move_file(path, lasting).await,
        Database::Postgres { name, .. } => swap_schema(&round.database, name, lasting).await,
    }
}

/// The statements run in one implicit transaction: all of them or none.
async fn swap_schema(database: &Database, role: &str, lasting: Duration) -> Result<(), String> {
    let swap = format!(
        "ALTER SCHEMA public RENAME TO aside;
         CREATE SCHEMA public AUTHORIZATION {role};
         DO $$
         DECLARE name text;
         BEGIN
             FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'aside' LOOP
                 EXECUTE format('CREATE TABLE public.%I (LIKE aside.%I INCLUDING ALL)', name, name);
                 EXECUTE format('ALTER TABLE public.%I OWNER TO {role}', name);
             END LOOP;
         END $$;
         INSERT INTO public.store_identity DEFAULT VALUES;
         INSERT INTO public.lanes (lane) SELECT lane FROM aside.lanes;
         INSERT INTO public.refinery_schema_history SELECT * FROM aside.refinery_schema_history"
    );
    database.execute(&swap).await?;
    sleep(lasting).await;
    heal(database, "DROP SCHEMA public CASCADE; ALTER SCHEMA aside RENAME TO public").await
}

async fn move_file(path: &Path, lasting: Duration) -> Result<(), String> {
    let aside = path.with_extension("aside");
    let rename = |from: &Path, to: &Path| std::fs::rename(from, to).map_err(|e| e.to_string());
    rename(path, &aside)?;
    sleep(lasting).await;
    rename(&aside, path)
}
