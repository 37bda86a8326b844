//! Privileges in the database: the serving role may change rows only, and `migrate` provisions it.

use testshop::db::{ConnInfo, roles};
use tokio_postgres::error::SqlState;

use crate::harness::{TestApp, as_serving_role, connect, process::command};

#[tokio::test]
async fn serving_role_cannot_change_schema_or_versions() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let serving = connect(&as_serving_role(app.database_url())).await;
    serving.batch_execute("create temporary table extra (transaction xid8, name text)").await.unwrap();
    for statement in [
        "create table extra (id int)",
        "create function extra() returns int language sql as 'select 1'",
        "create schema extra",
        "alter table products add column extra int",
        "alter table products disable trigger all",
        "drop table products",
        "drop trigger log_update on products",
        "create index on products (price)",
        "truncate products",
        // versions and revocations, which only triggers change
        "update versions set version = 0",
        "update accounts_versions set version = 0",
        "insert into accounts_versions (version, token) values (1, gen_random_uuid())",
        "delete from accounts_versions",
        "select nextval('accounts_versions_version_seq')",
        "select from accounts_commit_lock for update",
        "update catalogue_versions set version = 0",
        "insert into catalogue_versions (transaction) values ('1')",
        "delete from catalogue_versions",
        "select nextval('catalogue_versions_version_seq')",
        "update catalogue_changes set everything = false",
        "insert into catalogue_changes (transaction) values ('1')",
        "delete from catalogue_changes",
        "select from catalogue_commit_lock for update",
        "update revocations set expires_at = now()",
        // names and staff status of accounts
        "update users set is_staff = true",
        "update users set username = 'root'",
        "delete from users",
        // password hashes
        "select password from users",
        "select * from users",
        "update users set password = 'x' where password like 'pbkdf2%'",
        "insert into users (username, email, password) values ('eve', 'e', 'p') returning password",
        "insert into users (username, email, password, date_joined) values ('eve', 'e', 'p', now())",
        "update refinery_schema_history set version = 0",
        "set session_replication_role = replica",
        // functions that triggers run with the rights of the owner
        "create trigger extra after insert on pg_temp.extra for each row
             execute function public.apply_version_bump()",
        "create trigger extra after insert on pg_temp.extra for each row
             execute function public.insert_catalogue_version()",
        "create trigger extra after truncate on pg_temp.extra for each statement
             execute function public.log_truncated_table()",
        "create trigger extra after insert on pg_temp.extra for each row
             execute function public.log_replicated_row('products')",
        "create trigger extra before insert on pg_temp.extra for each row
             execute function public.defer_revocation()",
        "select public.log_catalogue_changes('products', '{1}')",
        "create trigger extra after insert on pg_temp.extra for each statement
             execute function public.advance_sequence('users_id_seq')",
        "select public.apply_pending_revocations('1')",
        "select * from pending_revocations",
        "select setval('users_id_seq', 1000000)",
        "copy products to program 'cat'",
        "create role extra",
    ] {
        let outcome = serving.batch_execute(statement).await;
        let code = outcome.as_ref().err().and_then(tokio_postgres::Error::code);
        assert_eq!(code, Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}: {outcome:?}");
    }
    // triggers bump the version for writes of this role
    let version = "select max(version) from catalogue_versions";
    let before: i64 = app.query_scalar(version).await;
    serving.batch_execute("update products set price = 5").await.unwrap();
    assert_eq!(app.query_scalar::<i64>(version).await, before + 1);
}

/// Runs `migrate` with the URL of a serving role; returns whether it succeeded, and its output.
fn migrate(app: &TestApp, serving_url: &str) -> (bool, String) {
    let mut migrate = command(&["migrate"]);
    let output = migrate.env("DATABASE_URL", app.database_url()).env("API_DATABASE_URL", serving_url).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[tokio::test]
async fn migrate_provisions_role_updates_password_and_revokes_excess_privileges() {
    let app = TestApp::spawn().await;
    let role = format!("{}_shop", app.database_name());
    let (_, address) = app.database_url().split_once('@').unwrap();
    let url = |password: &str| format!("postgres://{role}:{password}@{address}");

    let (succeeded, text) = migrate(&app, &url("first"));
    assert!(succeeded && text.contains(&format!("provisioned role {role}")), "{text}");
    let serving = connect(&url("first")).await;
    serving.batch_execute("insert into tags (name) values ('new')").await.unwrap();
    let timeout: String = serving.query_one("show statement_timeout", &[]).await.unwrap().get(0);
    assert_eq!(timeout, "5s", "the role has the timeout, for poolers that drop start-up parameters");
    let stored: String = app.query_scalar(&format!("select rolpassword from pg_authid where rolname = '{role}'")).await;
    assert!(stored.starts_with("SCRAM-SHA-256$"), "{stored}");

    app.batch_execute(&format!(
        "grant all on all tables in schema public to {role}; grant create on schema public to {role}"
    ))
    .await;
    let (succeeded, text) = migrate(&app, &url("second"));
    assert!(succeeded, "{text}");
    assert!(tokio_postgres::connect(&url("first"), tokio_postgres::NoTls).await.is_err(), "the password has changed");
    let serving = connect(&url("second")).await;
    assert!(serving.batch_execute("truncate products").await.is_err());
    assert!(serving.batch_execute("create table extra (id int)").await.is_err());
    serving.batch_execute("delete from tags").await.unwrap();

    // the owner and members of the owner's role are rejected as serving roles
    let (succeeded, text) = migrate(&app, app.database_url());
    assert!(!succeeded && text.contains("owns the schema"), "{text}");
    app.batch_execute(&format!(
        "create role {role}_member login in role {role}; alter table catalogue_versions owner to {role}"
    ))
    .await;
    let (succeeded, text) = migrate(&app, &url("second").replace(&role, &format!("{role}_member")));
    assert!(!succeeded && text.contains("owns the schema"), "{text}");
    app.batch_execute(&format!("alter table catalogue_versions owner to current_user; drop role {role}_member")).await;
    drop(serving);
    app.batch_execute(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn migrate_grants_to_existing_role_without_createrole() {
    let app = TestApp::spawn().await;
    let (owner, role) = (format!("{}_owner", app.database_name()), format!("{}_existing", app.database_name()));
    let (_, address) = app.database_url().split_once('@').unwrap();
    app.batch_execute(&format!(
        "create role {owner} login password 'owner'; alter schema public owner to {owner};
         do $$ declare name text; begin
             for name in select format('%I', relname) from pg_class
                          where relnamespace = 'public'::regnamespace
                            and (relkind in ('r', 'v') or relname in ('lease_tickets', 'expired_lease_tickets'))
             loop execute format('alter table %s owner to {owner}', name); end loop;
             for name in select oid::regprocedure from pg_proc
                          where proname in ('credentials_of', 'password_of', 'max_password_iterations',
                                            'prune_catalogue_versions', 'prune_accounts_versions',
                                            'read_versions_leased', 'surrender_leases', 'wait_for_leases',
                                            'set_lease_duration')
             loop execute format('alter function %s owner to {owner}', name); end loop;
         end $$"
    ))
    .await;
    let serving = ConnInfo::primary(&format!("postgres://{role}:existing@{address}")).unwrap();
    let mut client = connect(&format!("postgres://{owner}:owner@{address}")).await;
    let error = roles::provision_role(&mut client, &serving).await.unwrap_err().to_string();
    assert!(error.contains(&role) && error.contains("may not create it"), "{error}");

    app.batch_execute(&format!("create role {role} login password 'existing'")).await;
    roles::provision_role(&mut client, &serving).await.unwrap();
    let existing = connect(&format!("postgres://{role}:existing@{address}")).await;
    existing.batch_execute("insert into tags (name) values ('new')").await.unwrap();
    assert!(existing.batch_execute("drop table tags").await.is_err());
    drop((existing, client));
    app.batch_execute(&format!(
        "reassign owned by {owner} to current_user; drop owned by {owner}, {role}; drop role {owner}, {role}"
    ))
    .await;
}
