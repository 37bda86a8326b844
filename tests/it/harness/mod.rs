//! Starts the server under test: each [`TestApp`] has a new, migrated database on a real PostgreSQL, a real Redis and a
//! server that listens on a socket. A test fails when PostgreSQL or Redis is missing; it is not skipped.

pub mod client;
pub mod memory_group;
mod pooler;
pub mod ports;
pub mod process;
pub mod proxy;
mod run;
pub mod services;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use clap::Parser;
use serde_json::{Value, json};
use testshop::{
    config::ServeArgs,
    db::{ConnInfo, migrate, roles},
    server::Server,
};
use tokio::time::Instant;
use tokio_postgres::{
    Client, NoTls,
    types::{FromSql, ToSql},
};

pub use client::{KeepAliveClient, TestClient, TestResponse};
pub use pooler::Pooler;
pub use ports::ReservedPort;
pub use process::Process;
pub use proxy::{LinkState, Proxy};
pub use services::Services;

pub const JWT_SECRET: &str = "a secret for tests: more than 32 bytes";
pub const PASSWORD: &str = "s3cret of a test";
/// Password of the role with which the servers connect.
const SERVING_PASSWORD: &str = "only-for-tests";

/// A database and a server on it.
pub struct TestApp {
    pub server: Server,
    /// A connection as the owner of the database.
    pub sql: Client,
    url: String,
    settings: BTreeMap<&'static str, String>,
}

/// The settings of a [`TestApp`] that differ from the usual ones.
#[derive(Default)]
pub struct TestAppBuilder {
    settings: BTreeMap<&'static str, String>,
    server_url: Option<String>,
    database_proxy: Option<SocketAddr>,
    redis_proxy: Option<SocketAddr>,
    database_options: Option<String>,
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Returns an environment variable that `make test` sets.
pub fn required_env(variable: &str) -> String {
    let missing = || panic!("{variable} is not set: run the tests with `make test`");
    std::env::var(variable).unwrap_or_else(|_| missing())
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL accepts the connection");
    tokio::spawn(connection);
    client
}

/// Returns the host and port of a URL.
pub fn host_and_port(url: &str) -> &str {
    let after = url.rsplit_once('@').map_or(url, |(_, after)| after);
    after.split_once('/').map_or(after, |(host, _)| host)
}

/// Returns the URL with the role that the servers use.
pub fn as_serving_role(url: &str) -> String {
    let (_, address) = url.split_once('@').expect("a URL with a user");
    format!("postgres://{}:{SERVING_PASSWORD}@{address}", run::serving_role())
}

/// Returns the URL with the address of a proxy.
pub fn via_proxy(url: &str, proxy: SocketAddr) -> String {
    url.replacen(host_and_port(url), &proxy.to_string(), 1)
}

/// Returns the URL of another database on the same server.
pub fn with_database(url: &str, database: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{database}")
}

/// Creates a database without a schema, with these options of `create database`, and returns its URL for the owner.
pub async fn create_empty_database(options: &str) -> String {
    // the first call takes the lock of the run, which protects its databases
    run::template_database().await;
    let (name, url) = (run::new_database_name(), required_env("DATABASE_URL"));
    let create = format!("create database {name} {options}");
    connect(&url).await.batch_execute(&create).await.expect("the database is created");
    with_database(&url, &name)
}

/// Held while the serving role is provisioned: databases share it, and PostgreSQL rejects concurrent changes of a role.
static PROVISIONING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Creates the schema and the serving role in an empty database. No connection to it is left open.
async fn migrate_database(url: &str) {
    let (mut client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    migrate::migrate(&mut client).await.expect("the migrations run");
    let serving_role = ConnInfo::primary(&as_serving_role(url)).expect("the URL is valid");
    let provisioning = PROVISIONING.lock().await;
    roles::provision_role(&mut client, &serving_role).await.expect("the serving role is created");
    drop(provisioning);
    let extension = "create extension if not exists pg_stat_statements";
    client.batch_execute(extension).await.expect("pg_stat_statements is installed");
    drop(client);
    // PostgreSQL copies a template only while nothing is connected to it
    connection.await.unwrap().unwrap();
}

impl TestAppBuilder {
    /// Sets a setting by the name of its command line flag.
    pub fn with(mut self, flag: &'static str, value: impl ToString) -> Self {
        self.settings.insert(flag, value.to_string());
        self
    }

    /// Uses another PostgreSQL server than the shared one, by the URL of its owner role.
    pub fn on_server(mut self, owner_url: &str) -> Self {
        self.server_url = Some(owner_url.to_owned());
        self
    }

    /// Connects the server to PostgreSQL through a proxy. [`TestApp::sql`] does not use the proxy.
    pub fn database_via_proxy(mut self, proxy: &Proxy) -> Self {
        self.database_proxy = Some(proxy.address);
        self
    }

    /// Connects the server to Redis through a proxy.
    pub fn redis_via_proxy(mut self, proxy: &Proxy) -> Self {
        self.redis_proxy = Some(proxy.address);
        self
    }

    /// Creates the database with these options of `create database` instead of copying the template.
    pub fn with_database_options(mut self, options: &str) -> Self {
        self.database_options = Some(options.to_owned());
        self
    }

    /// Creates the database and starts the server.
    pub async fn spawn(self) -> TestApp {
        let name = run::new_database_name();
        let (url, create) = if let Some(server_url) = &self.server_url {
            (with_database(server_url, &name), format!("create database {name}"))
        } else {
            let template = run::template_database().await;
            let url = with_database(&required_env("DATABASE_URL"), &name);
            let options = self.database_options.clone().unwrap_or_else(|| format!("template {template}"));
            (url, format!("create database {name} {options}"))
        };
        let admin = connect(&self.server_url.clone().unwrap_or_else(|| required_env("DATABASE_URL"))).await;
        admin.batch_execute(&create).await.expect("the database is created");
        if self.server_url.is_some() || self.database_options.is_some() {
            migrate_database(&url).await;
        }
        let via = |url: String, proxy: Option<SocketAddr>| match proxy {
            Some(proxy) => via_proxy(&url, proxy),
            None => url,
        };
        let mut settings = BTreeMap::from([
            ("database-url", via(as_serving_role(&url), self.database_proxy)),
            ("redis-url", via(required_env("REDIS_URL"), self.redis_proxy)),
            ("redis-prefix", name),
            ("jwt-secret", JWT_SECRET.to_owned()),
            ("listen-addr", "127.0.0.1:0".to_owned()),
            ("admin-addr", "127.0.0.1:0".to_owned()),
            ("pbkdf2-iterations", "1000".to_owned()),
            ("rate-limit", "off".to_owned()),
            ("db-pool-size", "8".to_owned()),
        ]);
        settings.extend(self.settings);
        let server = start_server(&settings).await;
        TestApp { server, sql: connect(&url).await, url, settings }
    }
}

async fn start_server(settings: &BTreeMap<&'static str, String>) -> Server {
    let flags = settings.iter().map(|(flag, value)| format!("--{flag}={value}"));
    let arguments = std::iter::once("testshop".to_owned()).chain(flags);
    let config = Settings::parse_from(arguments).serve.config().expect("the settings are valid");
    Server::start(config, None).await.expect("the server starts")
}

impl TestApp {
    /// Starts an app with the usual settings.
    pub async fn spawn() -> Self {
        TestAppBuilder::default().spawn().await
    }

    /// The URL of the database for its owner.
    pub fn database_url(&self) -> &str {
        &self.url
    }

    pub fn database_name(&self) -> &str {
        self.setting("redis-prefix")
    }

    /// Starts another server on the same database and Redis.
    pub async fn start_instance(&self) -> Server {
        start_server(&self.settings).await
    }

    /// Starts another server with one setting changed.
    pub async fn start_instance_with(&self, flag: &'static str, value: impl ToString) -> Server {
        self.start_instance_with_settings(&[(flag, &value.to_string())]).await
    }

    /// Starts another server with some settings changed.
    pub async fn start_instance_with_settings(&self, changed: &[(&'static str, &str)]) -> Server {
        let mut settings = self.settings.clone();
        settings.extend(changed.iter().map(|(flag, value)| (*flag, (*value).to_owned())));
        start_server(&settings).await
    }

    /// The value of a setting by the name of its command line flag.
    pub fn setting(&self, flag: &str) -> &str {
        &self.settings[flag]
    }

    /// A client without credentials.
    pub fn anonymous(&self) -> TestClient {
        TestClient::new(self.server.address)
    }

    /// Registers an account and logs in.
    pub async fn create_user(&self, name: &str) -> TestClient {
        self.create_user_with_email(name, &format!("{name}@example.com")).await
    }

    /// Registers an account with this email and logs in.
    pub async fn create_user_with_email(&self, name: &str, email: &str) -> TestClient {
        let account = json!({"username": name, "email": email, "password": PASSWORD});
        let response = self.anonymous().post("/api/register/", account).await;
        assert_eq!(response.status, 201, "{}", response.text());
        self.login(name).await
    }

    /// Logs in with [`PASSWORD`].
    pub async fn login(&self, name: &str) -> TestClient {
        let credentials = json!({"username": name, "password": PASSWORD});
        let response = self.anonymous().post("/api/login/", credentials).await;
        assert_eq!(response.status, 200, "{}", response.text());
        self.anonymous().with_token(response.json()["token"].as_str().unwrap())
    }

    /// Registers a staff account and logs in.
    pub async fn create_staff(&self, name: &str) -> TestClient {
        let client = self.create_user(name).await;
        self.execute("update users set is_staff = true where username = $1", &[&name]).await;
        client
    }

    /// Runs one statement as the owner of the database, and returns the number of rows.
    pub async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> u64 {
        self.sql.execute(sql, params).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Runs several statements as the owner of the database.
    pub async fn batch_execute(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Returns the first column of the only row, as the owner of the database.
    pub async fn query_scalar<T: for<'a> FromSql<'a>>(&self, sql: &str) -> T {
        self.sql.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    /// Inserts a category, two tags, and `count` products that have both tags.
    pub async fn seed_products(&self, count: i32) {
        let names = "insert into categories (name) values ('Sport'); insert into tags (name) values ('new'), ('eco')";
        self.batch_execute(names).await;
        self.execute(
            "insert into products (category_id, name, description, price, created_at)
             select 1, 'Product ' || i, 'Number ' || i, i + 0.99, '2023-08-08T12:00:00Z' from generate_series(1, $1) i",
            &[&count],
        )
        .await;
        self.batch_execute("insert into product_tags select p.id, t.id from products p, tags t").await;
    }

    /// Returns how often statements `like` this pattern were executed in this database since the last
    /// [`TestApp::reset_statement_stats`].
    pub async fn statement_calls(&self, like: &str) -> i64 {
        self.wait_for_transactions().await;
        let sql = "select coalesce(sum(calls), 0)::bigint from pg_stat_statements
                    where query like $1
                      and dbid = (select oid from pg_database where datname = current_database())";
        self.sql.query_one(sql, &[&like]).await.unwrap().get(0)
    }

    pub async fn reset_statement_stats(&self) {
        self.wait_for_transactions().await;
        let sql = "select pg_stat_statements_reset(0, oid, 0) from pg_database where datname = current_database()";
        self.sql.query(sql, &[]).await.unwrap();
    }

    /// Waits until the servers have ended their transactions: PostgreSQL counts a statement when its transaction ends, and
    /// a server responds before it ends one that has only read.
    async fn wait_for_transactions(&self) {
        let sql = "select count(*) from pg_stat_activity
                    where xact_start is not null and datname = current_database() and pid <> pg_backend_pid()";
        wait_until("no transaction is open", async || self.query_scalar::<i64>(sql).await == 0).await;
    }

    /// Makes every read of a product take `seconds`, through a view in place of the table.
    pub async fn delay_product_rows(&self, seconds: f64) {
        self.batch_execute(&format!(
            "create function slow(bigint) returns bigint language plpgsql
                 as 'begin perform pg_sleep({seconds}); return $1; end';
             alter table products rename to products_stored;
             create view products as
             select slow(id) as id, category_id, name, description, price, created_at from products_stored;
             grant select on products to public"
        ))
        .await;
    }

    /// Waits until a statement reads rows that [`TestApp::delay_product_rows`] delays.
    pub async fn wait_until_rows_are_delayed(&self) {
        let sql = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
        wait_until("a statement sleeps", async || self.query_scalar::<i64>(sql).await > 0).await;
    }

    /// Deletes the keys of this app from Redis, which other tests share.
    pub async fn flush_redis(&self) {
        let client = redis::Client::open(required_env("REDIS_URL")).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let pattern = format!("{}:*", self.setting("redis-prefix"));
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
        for key in keys {
            redis::cmd("DEL").arg(key).query_async::<()>(&mut redis).await.unwrap();
        }
    }

    /// Returns a counter or gauge of [`TestApp::server`], see [`metric`].
    pub async fn metric(&self, name: &str) -> f64 {
        self.metric_on(&self.server, name).await
    }

    /// Returns a counter or gauge of another instance, see [`metric`].
    pub async fn metric_on(&self, server: &Server, name: &str) -> f64 {
        metric(server.admin_address, name).await
    }
}

/// Returns a counter or gauge from `/metrics`, by its name with labels. A series with labels is 0 before its first
/// event.
///
/// # Panics
/// When the server does not export the metric.
pub async fn metric(admin_address: SocketAddr, name: &str) -> f64 {
    let text = TestClient::new(admin_address).get("/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    match value {
        Some(value) => value.parse().unwrap(),
        None if name.contains('{') => 0.0,
        None => panic!("no metric {name}"),
    }
}

/// Returns the names in a list of products.
pub fn product_names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|product| product["name"].as_str().unwrap()).collect()
}

/// Polls a condition until it holds.
///
/// # Panics
/// When the condition does not hold within 20 seconds.
pub async fn wait_until<F: Future<Output = bool>>(condition: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "timed out before {condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
