//! The role that serves: made if it is missing, with the rights of `sql/roles.sql`. The schema stays its owner's.

use anyhow::Context;
use tokio_postgres::Client;

use super::Address;

const RIGHTS: &str = include_str!("../../sql/roles.sql");

/// Makes the role of `serving`, gives it the password that stands there, and its rights. `owner` owns the schema; where it
/// may not make roles, the role must be there, and only its rights are set.
pub async fn prepare(owner: &mut Client, serving: &Address) -> anyhow::Result<String> {
    let role = serving.common().get_user().context("API_DATABASE_URL names no user")?.to_owned();
    let asked = "select current_user::text = $1, exists (select from pg_roles where rolname = $1),
                        (select rolsuper or rolcreaterole from pg_roles where rolname = current_user)";
    let row = owner.query_one(asked, &[&role]).await?;
    let (is_owner, exists, may_make): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
    anyhow::ensure!(!is_owner, "API_DATABASE_URL names the owner of the schema, {role}: the shop would serve with it");
    anyhow::ensure!(exists || may_make, "the role {role} is not there, and DATABASE_URL's may not make it");

    let transaction = owner.transaction().await?;
    let name = identifier(&role);
    if !exists {
        transaction.batch_execute(&format!("create role {name} nosuperuser nocreatedb nocreaterole")).await?;
    }
    if may_make {
        let password = serving.common().get_password().context("API_DATABASE_URL has no password")?;
        // what PostgreSQL stores, so that the password itself stands in no statement and in no log
        let verifier = postgres_protocol::password::scram_sha_256(password);
        transaction.batch_execute(&format!("alter role {name} login password '{verifier}'")).await?;
        // the same bounds as each connection asks for: behind a pooler nobody asks
        for bound in ["statement_timeout = '5s'", "lock_timeout = '2s'", "idle_in_transaction_session_timeout = '10s'"]
        {
            transaction.batch_execute(&format!("alter role {name} set {bound}")).await?;
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
