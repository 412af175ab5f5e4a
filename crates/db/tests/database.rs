//! What a database promises its owners: what was answered is on disk, a failing job harms nobody
//! else, and a file of another version is refused.

use db::{Db, Error, Migration, Options};
use futures::FutureExt as _;
use stdx::Supervisor;

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "numbers",
    sql: "CREATE TABLE number (n INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;",
}];

#[derive(Debug, thiserror::Error)]
#[error("declined")]
struct Declined;

async fn insert(db: &Db, n: i64) -> Result<i64, Error> {
    db.write(move |tx| {
        async move {
            sqlx::query("INSERT INTO number (n, name) VALUES ($1, $2)")
                .bind(n)
                .bind(format!("number {n}"))
                .execute(tx)
                .await?;
            Ok(n)
        }
        .boxed()
    })
    .await
}

async fn count(db: &Db) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM number")
        .fetch_one(db.reader())
        .await
        .expect("count")
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::file(dir.path().join("x.db"));
    let supervisor = Supervisor::new();
    let db = Db::open(options.clone(), MIGRATIONS, &supervisor)
        .await
        .unwrap();
    let writes = futures::future::join_all((0..500).map(|n| insert(&db, n))).await;
    assert!(writes.iter().all(Result::is_ok), "{writes:?}");
    db.close().await;

    let again = Db::open(options, MIGRATIONS, &supervisor).await.unwrap();
    assert_eq!(count(&again).await, 500);
}

#[tokio::test]
async fn a_job_that_declines_is_undone_alone() {
    let db = Db::open(Options::memory("decline"), MIGRATIONS, &Supervisor::new())
        .await
        .unwrap();
    let declined = db.write(|tx| {
        async move {
            sqlx::query("INSERT INTO number VALUES (1000, 'never')")
                .execute(tx)
                .await?;
            Err::<(), _>(Error::job(Declined))
        }
        .boxed()
    });
    let (declined, ok, duplicate) = tokio::join!(declined, insert(&db, 1), async {
        (insert(&db, 2).await, insert(&db, 2).await)
    });
    declined.unwrap_err().into_job::<Declined>().unwrap();
    ok.unwrap();
    duplicate.0.unwrap();
    assert!(matches!(duplicate.1, Err(Error::Statement(_))));
    assert_eq!(count(&db).await, 2);
}

#[tokio::test]
async fn a_job_that_panics_is_answered_and_the_writer_lives() {
    let db = Db::open(Options::memory("panic"), MIGRATIONS, &Supervisor::new())
        .await
        .unwrap();
    let nothing: Option<i64> = std::hint::black_box(None);
    let answer = db
        .write(move |_| async move { Ok(nothing.expect("boom")) }.boxed())
        .await;
    assert!(matches!(answer, Err(Error::Commit(text)) if text.contains("boom")));
    insert(&db, 1).await.unwrap();
}

#[tokio::test]
async fn a_newer_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::file(dir.path().join("x.db"));
    let supervisor = Supervisor::new();
    let newer = [
        MIGRATIONS[0],
        Migration {
            version: 2,
            name: "later",
            sql: "SELECT 1;",
        },
    ];
    Db::open(options.clone(), &newer, &supervisor)
        .await
        .unwrap()
        .close()
        .await;
    let refused = Db::open(options, MIGRATIONS, &supervisor).await;
    assert!(
        matches!(
            refused,
            Err(Error::TooNew {
                found: 2,
                known: 1,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_closed_database_says_so() {
    let db = Db::open(Options::memory("closed"), MIGRATIONS, &Supervisor::new())
        .await
        .unwrap();
    db.close().await;
    assert!(matches!(insert(&db, 1).await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_full_disk_is_named_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(
        Options::file(dir.path().join("x.db")),
        MIGRATIONS,
        &Supervisor::new(),
    )
    .await
    .unwrap();
    insert(&db, 1).await.unwrap();
    // SQLite's own page limit gives the same error as a disk without space.
    let limit = |pages: i64| {
        db.write(move |tx| {
            async move {
                let sql = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
                sqlx::raw_sql(sql).execute(tx).await?;
                Ok(())
            }
            .boxed()
        })
    };
    limit(1).await.unwrap();
    let big = db
        .write(|tx| {
            async move {
                sqlx::query("INSERT INTO number VALUES (2, $1)")
                    .bind("x".repeat(100_000))
                    .execute(tx)
                    .await?;
                Ok(())
            }
            .boxed()
        })
        .await;
    assert!(
        matches!(big, Err(Error::DiskFull | Error::Statement(_))),
        "{big:?}"
    );
    limit(1_000_000).await.unwrap();
    insert(&db, 3).await.unwrap();
    assert_eq!(count(&db).await, 2);
}
