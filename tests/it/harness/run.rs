//! Names and cleanup of the databases of a test run.
//!
//! Several runs may use one PostgreSQL server at the same time. Each run has a random id, which is part of the names of
//! its databases and of its role, and holds an advisory lock on the id until its process ends. A run drops the databases
//! and roles of other runs only when no session holds their lock. PostgreSQL releases the lock however the process ends,
//! so nothing has to be recorded about processes, which may run on other hosts or in other PID namespaces.

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{LazyLock, atomic::AtomicUsize, atomic::Ordering::SeqCst, mpsc},
};

use tokio::sync::OnceCell;
use tokio_postgres::Client;

use super::{connect, migrate_database, required_env, with_database};

/// First key of the advisory locks; the second key is the run id.
const LOCK_CLASS: i32 = 0x7e57_5409;

/// Random, 31 bits.
static RUN_ID: LazyLock<i32> = LazyLock::new(|| {
    let random = RandomState::new().build_hasher().finish();
    i32::try_from(random >> 33).unwrap()
});

/// Name of a database with the schema in place, from which the databases of the tests are copied.
static TEMPLATE: OnceCell<String> = OnceCell::const_new();

/// A name for another database of this run.
pub fn new_database_name() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    format!("it_{}_{}", *RUN_ID, NUMBER.fetch_add(1, SeqCst))
}

/// The role with which the servers of this run connect.
pub fn serving_role() -> String {
    format!("it_{}_api", *RUN_ID)
}

/// Returns the name of the template database. The first call creates it, after it has dropped what ended runs left.
pub async fn template_database() -> &'static str {
    TEMPLATE.get_or_init(create_template).await
}

async fn create_template() -> String {
    // the lock comes first: a database of this run without the lock could be dropped by another run
    tokio::task::spawn_blocking(hold_run_lock).await.unwrap();
    let admin = connect(&required_env("DATABASE_URL")).await;
    drop_ended_runs(&admin).await;
    let name = format!("it_{}_template", *RUN_ID);
    admin.batch_execute(&format!("create database {name}")).await.expect("the template database is created");
    migrate_database(&with_database(&required_env("DATABASE_URL"), &name)).await;
    name
}

/// Takes the run's lock on a connection that lives as long as the process. The connection has a thread and a runtime of
/// its own: the runtime of the test that creates the template ends with that test.
fn hold_run_lock() {
    let (locked, is_locked) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = connect(&required_env("DATABASE_URL")).await;
            let lock = "select pg_advisory_lock($1, $2)";
            client.execute(lock, &[&LOCK_CLASS, &*RUN_ID]).await.expect("the lock of the run is taken");
            locked.send(()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    is_locked.recv().expect("the lock of the run is held");
}

/// Drops the databases and roles of runs whose lock nobody holds.
///
/// The names are read before the locks. A run takes its lock before it creates anything, so a name that has been read
/// belongs to a run that holds its lock or has ended. `pg_locks` shows the locks of all databases of the server.
async fn drop_ended_runs(admin: &Client) {
    let names = "select datname::text, 'database' from pg_database where datname ~ '^it_[0-9]+_([0-9]+|template)$'
                 union all
                 select rolname::text, 'role' from pg_roles where rolname ~ '^it_[0-9]+_api$'
                 order by 2";
    let names = admin.query(names, &[]).await.unwrap();
    let locks = "select objid::bigint from pg_locks where locktype = 'advisory' and classid = $1::bigint::oid";
    let locks = admin.query(locks, &[&i64::from(LOCK_CLASS)]).await.unwrap();
    let running: HashSet<i64> = locks.iter().map(|row| row.get(0)).collect();
    for row in names {
        let (name, kind): (&str, &str) = (row.get(0), row.get(1));
        let run_id: Option<i64> = name.split('_').nth(1).and_then(|id| id.parse().ok());
        if run_id.is_some_and(|id| !running.contains(&id)) {
            // fails while a server process that outlived its run is connected, or when another run was faster
            let _ = admin.batch_execute(&format!("drop {kind} {name}")).await;
        }
    }
}
