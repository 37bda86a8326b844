//! How the schema of a database relates to this program.
//!
//! The schema of a release serves the program of the release before it (expand, then contract). Each migration records
//! the oldest program that works with it in `schema_compatibility`; a program is identified by its newest migration.

use std::fmt::{self, Display, Formatter};

use refinery::{Migration, Runner};
use tokio_postgres::Client;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) const PRE_RELEASE: &str =
    "a version before the first release created this schema, and it cannot be migrated";

/// Returns the requirement of the migrations after migration $1. A migration without a record works with no other
/// program.
const REQUIREMENT_SQL: &str = "
select max(coalesce(oldest_schema, version)), (array_agg(program order by version desc))[1]
  from refinery_schema_history
  left join schema_compatibility on migration = version
 where version > $1";

/// The number and the former checksum of migrations that were edited before a release, because the locks that they took
/// let a commit beside them lose its revocations. Both contents create the same schema.
const EDITED: [(i32, u64); 2] = [(11, 63_682_368_200_280_378), (12, 13_090_342_960_961_094_839)];

/// The schema of a database, compared with the migrations of this program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Schema {
    UpToDate,
    /// The names of the migrations that the database lacks.
    Pending(Vec<String>),
    /// A newer program has migrated the schema, and it works with this program.
    Newer(NewerSchema),
    /// The schema does not work with this program, for this reason.
    Incompatible(String),
    /// A version before the first release created the schema.
    PreRelease,
}

/// A schema that a newer program has migrated and that works with this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewerSchema {
    newest: String,
    program: String,
    ours: i32,
}

impl Display for NewerSchema {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { newest, program, ours } = self;
        write!(
            f,
            "the schema is {newest} of testshop {program}, newer than this program (testshop {VERSION}, V{ours}) and \
             compatible with it"
        )
    }
}

/// Compares the history of the database with `ours`, the migrations of this program.
pub(super) async fn compare(client: &mut Client, ours: &[Migration]) -> anyhow::Result<Schema> {
    let applied = read_history(client).await?;
    let Some(level) = ours.iter().map(Migration::version).max() else { return Ok(Schema::UpToDate) };
    if let Some(problem) = divergence(&applied, ours) {
        return Ok(problem);
    }
    match applied.iter().max() {
        Some(newest) if newest.version() > level => requirement(client, newest, level).await,
        _ => Ok(pending(&applied, ours)),
    }
}

/// Returns why the applied migrations up to the newest of `ours` are not those of this program.
fn divergence(applied: &[Migration], ours: &[Migration]) -> Option<Schema> {
    let level = ours.iter().max()?.version();
    let differs = |ours: &&Migration| {
        let is_other = |done: &Migration| done != *ours && !EDITED.contains(&(done.version(), done.checksum()));
        applied.iter().any(|done| done.version() == ours.version() && is_other(done))
    };
    if ours.iter().min().is_some_and(|first| differs(&first)) {
        // migrations do not change after a release
        return Some(Schema::PreRelease);
    }
    if let Some(changed) = ours.iter().find(differs) {
        let reason = format!("the migration {changed} was applied with another content or name");
        return Some(Schema::Incompatible(reason));
    }
    let newest = applied.iter().max()?;
    let is_missing = |ours: &&Migration| ours < &newest && !applied.iter().any(|done| done.version() == ours.version());
    if let Some(missing) = ours.iter().find(is_missing) {
        return Some(Schema::Incompatible(format!("the schema is {newest}, but lacks {missing}")));
    }
    let is_unknown =
        |done: &&Migration| done.version() < level && !ours.iter().any(|ours| ours.version() == done.version());
    let unknown = applied.iter().find(is_unknown)?;
    Some(Schema::Incompatible(format!("{unknown} is missing in this program (testshop {VERSION}, V{level})")))
}

/// Returns whether the schema of a newer program works with a program whose newest migration is `level`.
async fn requirement(client: &mut Client, newest: &Migration, level: i32) -> anyhow::Result<Schema> {
    let table = client.query_one("select to_regclass('schema_compatibility')::text", &[]).await?;
    let row = match table.get::<_, Option<String>>(0) {
        Some(_) => Some(client.query_one(REQUIREMENT_SQL, &[&level]).await?),
        None => None,
    };
    let oldest = row.as_ref().map_or_else(|| newest.version(), |row| row.get(0));
    let program: Option<String> = row.and_then(|row| row.get(1));
    let program = program.unwrap_or_else(|| "of an unknown version".to_owned());
    let newest = newest.to_string();
    if oldest <= level {
        return Ok(Schema::Newer(NewerSchema { newest, program, ours: level }));
    }
    Ok(Schema::Incompatible(format!(
        "the schema is {newest} of testshop {program} and works with programs from V{oldest} on; this is testshop \
         {VERSION}, V{level}: use a newer program"
    )))
}

fn pending(applied: &[Migration], ours: &[Migration]) -> Schema {
    let is_pending = |ours: &&Migration| !applied.iter().any(|done| done.version() == ours.version());
    // the runner lists V10 before V2
    let mut pending: Vec<&Migration> = ours.iter().filter(is_pending).collect();
    pending.sort();
    let pending: Vec<String> = pending.into_iter().map(ToString::to_string).collect();
    if pending.is_empty() { Schema::UpToDate } else { Schema::Pending(pending) }
}

async fn read_history(client: &mut Client) -> anyhow::Result<Vec<Migration>> {
    let history = client.query_one("select to_regclass('refinery_schema_history')::text", &[]).await?;
    match history.get::<_, Option<String>>(0) {
        Some(_) => Ok(Runner::new(&[]).get_applied_migrations_async(client).await?),
        None => Ok(Vec::new()),
    }
}
