//! A shop of one's own for each test: a fresh database, all migrations, the real settings, the real server on a real
//! socket, the real PostgreSQL and Redis. A missing server is a loud failure, never a skip.

pub mod client;
pub mod process;
pub mod proxy;
pub mod services;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use clap::Parser;
use serde_json::{Value, json};
use testshop::{
    config::ServeArgs,
    db::{Address, migrate, roles},
    server::Server,
};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls, types::ToSql};

pub use client::{Answer, Caller, Kept};
pub use process::Process;
pub use proxy::{Line, Proxy};
pub use services::Services;

pub const JWT_SECRET: &str = "a secret for tests: more than 32 bytes";
pub const PASSWORD: &str = "s3cret of a test";
const SERVING_PASSWORD: &str = "only-for-tests";

/// A fresh database with one or more servers on it.
pub struct Shop {
    pub server: Server,
    pub sql: Client,
    url: String,
    settings: BTreeMap<&'static str, String>,
}

/// What a test wants to be different from the rest.
#[derive(Default)]
pub struct Plan {
    settings: BTreeMap<&'static str, String>,
    server: Option<String>,
    database_line: Option<SocketAddr>,
    redis_line: Option<SocketAddr>,
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    serve: ServeArgs,
}

pub fn needed(variable: &str) -> String {
    let missing = || panic!("{variable} is not set: run the tests with `make test`");
    std::env::var(variable).unwrap_or_else(|_| missing())
}

/// A database with the schema in place, from which each test's own is copied.
static TEMPLATE: OnceCell<String> = OnceCell::const_new();
static NUMBER: AtomicUsize = AtomicUsize::new(0);

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the database answers");
    tokio::spawn(connection);
    client
}

/// Host and port of a URL.
pub fn host_of(url: &str) -> &str {
    let after = url.rsplit_once('@').map_or(url, |(_, after)| after);
    after.split_once('/').map_or(after, |(host, _)| host)
}

/// The same URL for the role with which a shop serves.
pub fn as_serving_role(url: &str) -> String {
    let (_, place) = url.split_once('@').expect("a URL with a user");
    format!("postgres://it_{}_api:{SERVING_PASSWORD}@{place}", std::process::id())
}

/// The same URL over a line.
fn over(url: &str, line: Option<SocketAddr>) -> String {
    line.map_or_else(|| url.to_owned(), |line| url.replacen(host_of(url), &line.to_string(), 1))
}

/// The URL of another database on the same server.
pub fn beside(url: &str, database: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{database}")
}

/// Puts the schema into a database, and makes the role that serves.
async fn furnish(url: &str) {
    let (mut client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    migrate::migrate(&mut client).await.expect("the migrations run");
    let serving = Address::primary(&as_serving_role(url)).expect("an address");
    roles::provision_role(&mut client, &serving).await.expect("a role that serves can be made");
    client.batch_execute("create extension if not exists pg_stat_statements").await.expect("statements are counted");
    drop(client);
    // a template must have no connections
    connection.await.unwrap().unwrap();
}

async fn template() -> String {
    let admin = connect(&needed("DATABASE_URL")).await;
    // what earlier runs on this server left behind; those that are in use stay
    for row in admin.query("select datname from pg_database where datname like 'it\\_%'", &[]).await.unwrap() {
        let _ = admin.batch_execute(&format!("drop database {}", row.get::<_, &str>(0))).await;
    }
    for row in admin.query("select rolname from pg_roles where rolname ~ '^it_[0-9]+_api$'", &[]).await.unwrap() {
        let _ = admin.batch_execute(&format!("drop role {}", row.get::<_, &str>(0))).await;
    }
    let name = format!("it_{}_template", std::process::id());
    admin.batch_execute(&format!("create database {name}")).await.expect("a database can be made");
    furnish(&beside(&needed("DATABASE_URL"), &name)).await;
    name
}

impl Plan {
    /// A setting as the environment would give it, by the name of its flag.
    pub fn with(mut self, flag: &'static str, value: impl ToString) -> Self {
        self.settings.insert(flag, value.to_string());
        self
    }

    /// Another server than the one all tests share: the URL of its owner.
    pub fn on(mut self, server: &str) -> Self {
        self.server = Some(server.to_owned());
        self
    }

    /// The shop reaches its database over this line only.
    pub fn database_over(mut self, line: &Proxy) -> Self {
        self.database_line = Some(line.address);
        self
    }

    /// The shop reaches Redis over this line only.
    pub fn redis_over(mut self, line: &Proxy) -> Self {
        self.redis_line = Some(line.address);
        self
    }

    /// A fresh database and a server on it.
    pub async fn open(self) -> Shop {
        let name = format!("it_{}_{}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        let server = self.server.clone().unwrap_or_else(|| needed("DATABASE_URL"));
        let url = beside(&server, &name);
        let admin = connect(&server).await;
        if self.server.is_some() {
            admin.batch_execute(&format!("create database {name}")).await.expect("a database can be made");
            furnish(&url).await;
        } else {
            let template = TEMPLATE.get_or_init(template).await;
            let copy = format!("create database {name} template {template}");
            admin.batch_execute(&copy).await.expect("a copy can be made");
        }
        let mut settings = BTreeMap::from([
            ("database-url", over(&as_serving_role(&url), self.database_line)),
            ("redis-url", over(&needed("REDIS_URL"), self.redis_line)),
            ("redis-prefix", name),
            ("jwt-secret", JWT_SECRET.to_owned()),
            ("listen-addr", "127.0.0.1:0".to_owned()),
            ("admin-addr", "127.0.0.1:0".to_owned()),
            ("pbkdf2-iterations", "1000".to_owned()),
            ("rate-limit", "off".to_owned()),
            ("db-pool-size", "8".to_owned()),
        ]);
        settings.extend(self.settings);
        let server = start(&settings).await;
        Shop { server, sql: connect(&url).await, url, settings }
    }
}

async fn start(settings: &BTreeMap<&'static str, String>) -> Server {
    let flags = settings.iter().map(|(flag, value)| format!("--{flag}={value}"));
    let arguments = std::iter::once("testshop".to_owned()).chain(flags);
    let config = Settings::parse_from(arguments).serve.config().expect("the settings are right");
    Server::start(config, None).await.expect("the server starts")
}

impl Shop {
    /// A shop with the usual settings.
    pub async fn open() -> Self {
        Plan::default().open().await
    }

    /// The URL of this shop's database.
    pub fn database_url(&self) -> &str {
        &self.url
    }

    /// The name of this shop's database.
    pub fn database(&self) -> &str {
        self.setting("redis-prefix")
    }

    /// Another server on the same database and Redis.
    pub async fn another_instance(&self) -> Server {
        start(&self.settings).await
    }

    /// Another server with one setting different.
    pub async fn another_instance_with(&self, flag: &'static str, value: impl ToString) -> Server {
        self.another_instance_with_all(&[(flag, &value.to_string())]).await
    }

    /// Another server with some settings different.
    pub async fn another_instance_with_all(&self, different: &[(&'static str, &str)]) -> Server {
        let mut settings = self.settings.clone();
        settings.extend(different.iter().map(|(flag, value)| (*flag, (*value).to_owned())));
        start(&settings).await
    }

    pub fn setting(&self, flag: &str) -> &str {
        &self.settings[flag]
    }

    /// A caller without credentials.
    pub fn anyone(&self) -> Caller {
        Caller::new(self.server.address)
    }

    /// A user who has registered and logged in.
    pub async fn user(&self, name: &str) -> Caller {
        let anyone = self.anyone();
        let account = json!({"username": name, "email": format!("{name}@example.com"), "password": PASSWORD});
        let registered = anyone.post("/api/register/", account).await;
        assert_eq!(registered.status, 201, "{}", registered.text());
        self.login(name).await
    }

    /// Logs an account in.
    pub async fn login(&self, name: &str) -> Caller {
        let answer = self.anyone().post("/api/login/", json!({"username": name, "password": PASSWORD})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.anyone().bearing(answer.json()["token"].as_str().unwrap())
    }

    /// A staff account, logged in.
    pub async fn staff(&self, name: &str) -> Caller {
        let caller = self.user(name).await;
        self.run("update users set is_staff = true where username = $1", &[&name]).await;
        caller
    }

    /// One statement by somebody who is not the shop.
    pub async fn run(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> u64 {
        self.sql.execute(sql, params).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Several statements by somebody who is not the shop.
    pub async fn script(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The first column of one row.
    pub async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        self.sql.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    /// A category, two tags, and so many products with both.
    pub async fn stock(&self, products: i32) {
        self.script("insert into categories (name) values ('Sport'); insert into tags (name) values ('new'), ('eco')")
            .await;
        self.run(
            "insert into products (category_id, name, description, price, created_at)
             select 1, 'Product ' || i, 'Number ' || i, i + 0.99, '2023-08-08T12:00:00Z' from generate_series(1, $1) i",
            &[&products],
        )
        .await;
        self.script("insert into product_tags select p.id, t.id from products p, tags t").await;
    }

    /// How often statements of this kind were executed in this shop's database since the last [`Shop::forget_calls`].
    pub async fn calls(&self, like: &str) -> i64 {
        let sql = "select coalesce(sum(calls), 0)::bigint from pg_stat_statements
                    where query like $1
                      and dbid = (select oid from pg_database where datname = current_database())";
        self.sql.query_one(sql, &[&like]).await.unwrap().get(0)
    }

    pub async fn forget_calls(&self) {
        let sql = "select pg_stat_statements_reset(0, oid, 0) from pg_database where datname = current_database()";
        self.sql.query(sql, &[]).await.unwrap();
    }

    /// A counter or gauge from `/metrics`; 0 when it is not there yet.
    pub async fn metric(&self, line: &str) -> f64 {
        self.metric_at(&self.server, line).await
    }

    /// The same of another instance.
    pub async fn metric_at(&self, server: &Server, line: &str) -> f64 {
        metric(server.admin_address, line).await
    }
}

/// A counter or gauge from `/metrics` at this address; 0 when it is not there yet.
pub async fn metric(address: SocketAddr, line: &str) -> f64 {
    let text = Caller::new(address).get("/metrics").await.text();
    let value = text.lines().find_map(|candidate| candidate.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// The names in a list of products.
pub fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|product| product["name"].as_str().unwrap()).collect()
}

/// Waits until a condition holds; a bound on the wait, not a pause.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
