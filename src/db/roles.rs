//! The role that serves: made if it is missing, with the rights of `sql/roles.sql`. The schema stays its owner's.

use anyhow::Context;
use tokio_postgres::Client;

use super::{conninfo::ConnInfo, migrate::LOCK, pool::BOUNDS};

/// Of the role $1: whether it is there, and owns what it would serve; of ours: whether we may make it, and alter it.
const STANDING: &str = "
select serving.oid is not null,
       coalesce(serving.rolsuper or pg_has_role(serving.oid, versions.relowner, 'member'), false),
       own.rolsuper or own.rolcreaterole,
       own.rolsuper or (own.rolcreaterole and current_setting('server_version_num')::int < 160000)
           or coalesce(pg_has_role(serving.oid, 'member with admin option'), false)
  from pg_roles own
  join pg_class versions on versions.oid = 'public.versions'::regclass
  left join pg_roles serving on serving.rolname = $1
 where own.rolname = current_user";
const RIGHTS: &str = include_str!("../../sql/roles.sql");

/// Makes the role of `serving`, gives it the password that stands there, and its rights. `owner` owns the schema; where it
/// may not make roles, the role must be there, and only its rights are set.
pub async fn prepare(owner: &mut Client, serving: &ConnInfo) -> anyhow::Result<String> {
    let role = serving.common().get_user().context("API_DATABASE_URL names no user")?.to_owned();
    let transaction = owner.transaction().await?;
    // one at a time, and none while somebody migrates
    transaction.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let row = transaction.query_one(STANDING, &[&role]).await?;
    let (exists, owns, may_make, may_alter): (bool, bool, bool, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    anyhow::ensure!(!owns, "API_DATABASE_URL names {role}, which owns the schema or may do as its owner does");
    anyhow::ensure!(exists || may_make, "the role {role} is not there, and DATABASE_URL's may not make it");

    let name = identifier(&role);
    if !exists {
        transaction.batch_execute(&format!("create role {name} nosuperuser nocreatedb nocreaterole")).await?;
    }
    if !exists || may_alter {
        let password = serving.common().get_password().context("API_DATABASE_URL has no password")?;
        // what PostgreSQL stores, so that the password itself stands in no statement and in no log
        let verifier = postgres_protocol::password::scram_sha_256(password);
        transaction.batch_execute(&format!("alter role {name} login password '{verifier}'")).await?;
        // the same bounds as each connection asks for: behind a pooler nobody asks
        for (setting, bound) in [("statement_timeout", "5s")].into_iter().chain(BOUNDS) {
            transaction.batch_execute(&format!("alter role {name} set {setting} = '{bound}'")).await?;
        }
    }
    transaction.query_one("select set_config('testshop.serving_role', $1, true)", &[&role]).await?;
    transaction.batch_execute(RIGHTS).await.context("sql/roles.sql")?;
    transaction.commit().await?;
    Ok(role)
}

/// A name as SQL quotes it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
