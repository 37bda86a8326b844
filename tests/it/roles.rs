//! Who may do what in the database: the role that serves changes rows and no schema, and `migrate` prepares it.

use std::process::Command;

use testshop::db::{ConnInfo, roles};
use tokio_postgres::error::SqlState;

use crate::harness::{TestApp, as_serving_role, connect};

#[tokio::test]
async fn serving_role_cannot_change_schema_or_versions() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let serving = connect(&as_serving_role(app.database_url())).await;
    serving.batch_execute("create temporary table mine (transaction xid8, name text)").await.unwrap();
    for refused in [
        "create table mine (id int)",
        "create function mine() returns int language sql as 'select 1'",
        "create schema mine",
        "alter table products add column mine int",
        "alter table products disable trigger all",
        "drop table products",
        "drop trigger bump_version on products",
        "create index on products (price)",
        "truncate products",
        // the order of versions, and what was revoked, is not in its hands
        "update versions set version = 0",
        "insert into versions (name) values ('mine')",
        "delete from versions",
        "update revocations set expires_at = now()",
        // nor what an account is called and whether it is staff
        "update users set is_staff = true",
        "update users set username = 'root'",
        "delete from users",
        // nor what all of them have for a password
        "select password from users",
        "select * from users",
        "update users set password = 'x' where password like 'pbkdf2%'",
        "insert into users (username, email, password) values ('eve', 'e', 'p') returning password",
        "insert into users (username, email, password, date_joined) values ('eve', 'e', 'p', now())",
        "update refinery_schema_history set version = 0",
        "set session_replication_role = replica",
        // nor what triggers do for it
        "create trigger mine after insert on pg_temp.mine for each row execute function public.apply_version_bump()",
        "create trigger mine before insert on pg_temp.mine for each row execute function public.assign_revocation_seq()",
        "create trigger mine after insert on pg_temp.mine for each statement execute function public.advance_sequence('users_id_seq')",
        "select setval('users_id_seq', 1000000)",
        "copy products to program 'cat'",
        "create role mine",
    ] {
        let outcome = serving.batch_execute(refused).await;
        let code = outcome.as_ref().err().and_then(tokio_postgres::Error::code);
        assert_eq!(code, Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{refused}: {outcome:?}");
    }
    // and a write by it counts like any other
    let version = "select version from versions where name = 'catalogue'";
    let before: i64 = app.query_scalar(version).await;
    serving.batch_execute("update products set price = 5").await.unwrap();
    assert_eq!(app.query_scalar::<i64>(version).await, before + 1);
}

fn migrate(app: &TestApp, serving: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testshop"));
    command.arg("migrate").env_clear().env("DATABASE_URL", app.database_url()).env("API_DATABASE_URL", serving);
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), words)
}

#[tokio::test]
async fn migrate_provisions_role_updates_password_and_revokes_excess_privileges() {
    let app = TestApp::spawn().await;
    let role = format!("{}_shop", app.database_name());
    let (_, place) = app.database_url().split_once('@').unwrap();
    let url = |password: &str| format!("postgres://{role}:{password}@{place}");

    let (done, words) = migrate(&app, &url("first"));
    assert!(done && words.contains(&format!("{role} may serve")), "{words}");
    let serving = connect(&url("first")).await;
    serving.batch_execute("insert into tags (name) values ('new')").await.unwrap();
    let bound: String = serving.query_one("show statement_timeout", &[]).await.unwrap().get(0);
    assert_eq!(bound, "5s", "also where no start-up parameter arrives");
    let stored: String = app.query_scalar(&format!("select rolpassword from pg_authid where rolname = '{role}'")).await;
    assert!(stored.starts_with("SCRAM-SHA-256$"), "{stored}");

    app.batch_execute(&format!(
        "grant all on all tables in schema public to {role}; grant create on schema public to {role}"
    ))
    .await;
    let (done, words) = migrate(&app, &url("second"));
    assert!(done, "{words}");
    assert!(tokio_postgres::connect(&url("first"), tokio_postgres::NoTls).await.is_err(), "another password now");
    let serving = connect(&url("second")).await;
    assert!(serving.batch_execute("truncate products").await.is_err());
    assert!(serving.batch_execute("create table mine (id int)").await.is_err());
    serving.batch_execute("delete from tags").await.unwrap();

    // neither the owner nor who may do as it does is a role to serve with
    let (done, words) = migrate(&app, app.database_url());
    assert!(!done && words.contains("owns the schema"), "{words}");
    app.batch_execute(&format!("create role {role}_heir login in role {role}; alter table versions owner to {role}"))
        .await;
    let (done, words) = migrate(&app, &url("second").replace(&role, &format!("{role}_heir")));
    assert!(!done && words.contains("owns the schema"), "{words}");
    app.batch_execute(&format!("alter table versions owner to current_user; drop role {role}_heir")).await;
    drop(serving);
    app.batch_execute(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn migrate_grants_to_existing_role_without_createrole() {
    let app = TestApp::spawn().await;
    let (owner, role) = (format!("{}_owner", app.database_name()), format!("{}_given", app.database_name()));
    let (_, place) = app.database_url().split_once('@').unwrap();
    app.batch_execute(&format!(
        "create role {owner} login password 'owner'; alter schema public owner to {owner};
         do $$ declare name text; begin
             for name in select format('%I', relname) from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
             loop execute format('alter table %s owner to {owner}', name); end loop;
             for name in select oid::regprocedure from pg_proc where proname in ('credentials_of', 'password_of')
             loop execute format('alter function %s owner to {owner}', name); end loop;
         end $$"
    ))
    .await;
    let serving = ConnInfo::primary(&format!("postgres://{role}:given@{place}")).unwrap();
    let mut client = connect(&format!("postgres://{owner}:owner@{place}")).await;
    let refused = roles::provision_role(&mut client, &serving).await.unwrap_err().to_string();
    assert!(refused.contains(&role) && refused.contains("may not create it"), "{refused}");

    app.batch_execute(&format!("create role {role} login password 'given'")).await;
    roles::provision_role(&mut client, &serving).await.unwrap();
    let given = connect(&format!("postgres://{role}:given@{place}")).await;
    given.batch_execute("insert into tags (name) values ('new')").await.unwrap();
    assert!(given.batch_execute("drop table tags").await.is_err());
    drop((given, client));
    app.batch_execute(&format!(
        "reassign owned by {owner} to current_user; drop owned by {owner}, {role}; drop role {owner}, {role}"
    ))
    .await;
}
