//! Finds the schema with the tables. All sessions are pinned to it: with a search path of several
//! schemas, one that is created later could hide the tables behind empty ones.

use tokio_postgres::Client;

use super::{OpenError, advice::advice};

/// Schemas with tables of a store, in the search path and elsewhere; whether the URL sets the
/// search path; and where tables would be created.
const FIND: &str = "
    WITH stores AS (
        SELECT n.nspname, array_position(current_schemas(false), n.nspname) AS place,
               has_schema_privilege(n.oid, 'USAGE') AS usable
        FROM pg_namespace n
        WHERE 2 = (
            SELECT count(*) FROM pg_class c
            WHERE c.relnamespace = n.oid AND c.relname IN ('store_identity', 'processed_events')
            AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
        )
    )
    SELECT array(SELECT nspname::text FROM stores WHERE place IS NOT NULL ORDER BY place),
           array(SELECT nspname::text FROM stores WHERE place IS NULL ORDER BY nspname),
           (SELECT count(*) FROM stores WHERE place IS NULL AND NOT usable),
           (SELECT source = 'client' FROM pg_settings WHERE name = 'search_path'),
           current_schema()::text,
           has_schema_privilege(current_schema(), 'CREATE'),
           current_user::text";

/// The schemas that a session sees in its database.
pub(super) struct Schemas {
    in_path: Vec<String>,
    elsewhere: Vec<String>,
    /// Number of those elsewhere that the role may not use.
    forbidden: i64,
    is_path_of_url: bool,
    current: Option<String>,
    may_create: Option<bool>,
    role: String,
}

impl Schemas {
    pub(super) async fn look(client: &Client, database: &str) -> Result<Self, OpenError> {
        let row = client.query_one(FIND, &[]).await;
        let row = row.map_err(|error| refused(database, advice(&error)))?;
        Ok(Self {
            in_path: row.get(0),
            elsewhere: row.get(1),
            forbidden: row.get(2),
            is_path_of_url: row.get::<_, Option<bool>>(3).unwrap_or_default(),
            current: row.get(4),
            may_create: row.get(5),
            role: row.get(6),
        })
    }

    /// The schema with the tables, if there is one. The search path decides. If the URL does not
    /// set it, it may have been changed for other reasons, so schemas outside of it count too.
    pub(super) fn existing(&self, database: &str) -> Result<Option<&str>, OpenError> {
        let found = match (&*self.in_path, self.is_path_of_url) {
            ([], false) => &self.elsewhere,
            (in_path, _) => in_path,
        };
        match found {
            [] => Ok(None),
            [one] if self.in_path.is_empty() && self.forbidden > 0 => Err(refused(
                database,
                format!(
                    "its tables are in schema {one}, which role {} may not use; run: GRANT USAGE \
                     ON SCHEMA {} TO {}; or choose another schema in the URL: {IN_URL}",
                    self.role,
                    quote(one),
                    quote(&self.role)
                ),
            )),
            [one] => Ok(Some(one)),
            several => Err(refused(
                database,
                format!(
                    "event-aggregator tables exist in several schemas: {}; choose one in the URL: \
                     {IN_URL}, or drop the empty one",
                    several.join(", ")
                ),
            )),
        }
    }

    /// The schema in which tables are created.
    pub(super) fn for_creation(&self, database: &str) -> Result<&str, OpenError> {
        let Some(current) = &self.current else {
            let reason = format!(
                "no schema in its search_path exists; run CREATE SCHEMA, or choose another schema \
                 in the URL: {IN_URL}"
            );
            return Err(refused(database, reason));
        };
        if self.may_create == Some(true) {
            return Ok(current);
        }
        let (schema, role) = (quote(current), quote(&self.role));
        Err(refused(
            database,
            format!(
                "role {} may not create tables in schema {current}; run: GRANT CREATE ON SCHEMA \
                 {schema} TO {role}; or choose another schema in the URL: {IN_URL}",
                self.role
            ),
        ))
    }
}

/// How to choose a schema in the URL.
const IN_URL: &str = "?options=-c%20search_path%3DNAME";

fn refused(database: &str, reason: String) -> OpenError {
    OpenError::Unreachable { database: database.to_owned(), reason }
}

/// Pins an open session to one schema.
pub(super) async fn pin(client: &Client, schema: &str) -> Result<(), tokio_postgres::Error> {
    let sql = "SELECT set_config('search_path', $1, false)";
    client.execute(sql, &[&quote(schema)]).await.map(drop)
}

/// The option that pins new sessions to one schema. Whitespace separates options, unless it is
/// escaped with a backslash.
pub(super) fn option(schema: &str) -> String {
    let escaped = quote(schema).chars().fold(String::new(), |mut escaped, character| {
        if character == '\\' || character.is_whitespace() {
            escaped.push('\\');
        }
        escaped.push(character);
        escaped
    });
    format!("-c search_path={escaped}")
}

/// A quoted SQL identifier.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    #[test]
    fn odd_names_are_quoted() {
        assert_eq!(super::option("public"), r#"-c search_path="public""#);
        assert_eq!(super::option(r#"a "b\c"#), r#"-c search_path="a\ ""b\\c""#);
    }
}
