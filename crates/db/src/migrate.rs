//! Bringing a database to the version its owner expects.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use crate::Error;

/// One step of a database's history. Versions count from 1 without gaps.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The version the database has after this step.
    pub version: i64,
    /// What it does, for error messages.
    pub name: &'static str,
    /// The statements.
    pub sql: &'static str,
}

/// Runs the migrations that the file has not seen, each in a transaction of its own.
pub(crate) async fn run(
    connection: &mut SqliteConnection,
    path: &Path,
    migrations: &[Migration],
) -> Result<(), Error> {
    let (found,): (i64,) = sqlx::query_as("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await?;
    let known = migrations.last().map_or(0, |m| m.version);
    if found > known {
        return Err(Error::TooNew {
            path: path.to_owned(),
            found,
            known,
        });
    }
    for migration in migrations.iter().filter(|m| m.version > found) {
        apply(connection, migration)
            .await
            .map_err(|source| Error::Migrate {
                version: migration.version,
                name: migration.name,
                source,
            })?;
    }
    Ok(())
}

async fn apply(connection: &mut SqliteConnection, migration: &Migration) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(migration.sql)
        .execute(&mut *transaction)
        .await?;
    // PRAGMA takes no parameters; the version is a number of ours.
    let stamp = format!("PRAGMA user_version = {}", migration.version);
    sqlx::raw_sql(AssertSqlSafe(stamp))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}
