//! The serving role: created if it does not exist, with the privileges of `sql/roles.sql`. The schema keeps its owner.

use anyhow::Context;
use tokio_postgres::{Client, Transaction};

use super::{
    ConnInfo,
    migrate::{self, MIGRATION_LOCK_KEY},
    pool::SESSION_LIMITS,
    schema::Schema,
};

/// Returns whether role $1 exists, whether it has the privileges of the schema's owner, whether the current role may
/// create roles, whether it may alter role $1, and whether role $1 has privileges.
const ROLE_STATUS_SQL: &str = "
select serving.oid is not null,
       coalesce(serving.rolsuper or pg_has_role(serving.oid, versions.relowner, 'member'), false),
       own.rolsuper or own.rolcreaterole,
       own.rolsuper or (own.rolcreaterole and current_setting('server_version_num')::int < 160000)
           or coalesce(pg_has_role(serving.oid, 'member with admin option'), false),
       coalesce(has_table_privilege(serving.oid, versions.oid, 'select'), false)
  from pg_roles own
  join pg_class versions on versions.oid = 'public.catalogue_versions'::regclass
  left join pg_roles serving on serving.rolname = $1
 where own.rolname = current_user";
const GRANTS_SQL: &str = include_str!("../../sql/roles.sql");

/// Creates the role named in `serving` if necessary, sets its password and its privileges, and returns its name.
///
/// `owner` is a connection as the owner of the schema. If it may not create roles, the role must exist; if it may not
/// alter the role, only the privileges are set. Fails when the role has the owner's privileges. On a schema that a newer
/// program has migrated, privileges that the role has stay as that program granted them: it may need more.
pub async fn provision_role(owner: &mut Client, serving: &ConnInfo) -> anyhow::Result<String> {
    let role = serving.base_config().get_user().context("API_DATABASE_URL names no user")?.to_owned();
    let is_newer = matches!(migrate::schema(owner).await?, Schema::Newer(_));
    let transaction = owner.transaction().await?;
    // excludes other calls and running migrations
    transaction.execute("select pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK_KEY]).await?;
    let row = transaction.query_one(ROLE_STATUS_SQL, &[&role]).await?;
    let (exists, is_owner, may_create, may_alter, has_privileges): (bool, bool, bool, bool, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    anyhow::ensure!(!is_owner, "API_DATABASE_URL names {role}, which owns the schema or has its owner's privileges");
    anyhow::ensure!(exists || may_create, "the role {role} does not exist, and DATABASE_URL's role may not create it");

    let name = quote_identifier(&role);
    if !exists {
        transaction.batch_execute(&format!("create role {name} nosuperuser nocreatedb nocreaterole")).await?;
    }
    if !exists || may_alter {
        let password = serving.base_config().get_password().context("API_DATABASE_URL has no password")?;
        // the SCRAM verifier, so that the password itself appears in no statement and no log
        let verifier = postgres_protocol::password::scram_sha_256(password);
        transaction.batch_execute(&format!("alter role {name} login password '{verifier}'")).await?;
        // The limits that connections request at startup, because a pooler does not pass startup parameters on.
        for (setting, limit) in [("statement_timeout", "5s")].into_iter().chain(SESSION_LIMITS) {
            transaction.batch_execute(&format!("alter role {name} set {setting} = '{limit}'")).await?;
        }
    }
    if !(is_newer && has_privileges) {
        grant(&transaction, &role).await?;
    }
    transaction.commit().await?;
    Ok(role)
}

async fn grant(transaction: &Transaction<'_>, role: &str) -> anyhow::Result<()> {
    transaction.query_one("select set_config('testshop.serving_role', $1, true)", &[&role]).await?;
    transaction.batch_execute(GRANTS_SQL).await.context("sql/roles.sql")
}

fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
