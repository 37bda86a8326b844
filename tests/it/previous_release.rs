//! The previous release beside this one on one database: both may migrate, in any order, while both serve.
//!
//! `make test` builds the previous release with `scripts/previous_release.py` and names it in `PREVIOUS_TESTSHOP`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use hyper::Method;
use serde_json::{Value, json};
use tokio::{sync::RwLock, task::JoinHandle};

use crate::harness::{
    KeepAliveClient, PASSWORD, Process, TestClient, connect, create_empty_database, process, wait_until,
};

/// Returns the program of the previous release, or `None` when the repository has no history of it.
fn previous_program() -> Option<PathBuf> {
    let program = std::env::var_os("PREVIOUS_TESTSHOP").filter(|program| !program.is_empty());
    if program.is_none() {
        println!("SKIPPED: PREVIOUS_TESTSHOP is not set; `make test` sets it when the git history has a release");
    }
    program.map(PathBuf::from)
}

/// A database without a schema, and its serving role.
struct Shop {
    owner_url: String,
    serving_url: String,
    role: String,
}

impl Shop {
    async fn create() -> Self {
        let owner_url = create_empty_database("").await;
        let (server, name) = owner_url.rsplit_once('/').unwrap();
        let (_, address) = server.split_once('@').unwrap();
        let role = format!("{name}_shop");
        let serving_url = format!("postgres://{role}:secret@{address}/{name}");
        Self { owner_url, serving_url, role }
    }

    /// Runs a subcommand that succeeds, as the owner, and returns its output.
    fn run(&self, mut command: Command) -> String {
        command.env("DATABASE_URL", &self.owner_url).env("API_DATABASE_URL", &self.serving_url);
        let output = command.env("JWT_SECRET", crate::harness::JWT_SECRET).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {text}");
        text
    }

    /// Starts a server with the serving role, or with `--migrate` as the owner.
    fn serve(&self, program: Command, migrate: bool) -> Process {
        let url = if migrate { &self.owner_url } else { &self.serving_url };
        let mut serve = process::configure_serve(program, url);
        serve.arg("serve").args(migrate.then_some("--migrate"));
        Process::start(serve.env("PBKDF2_ITERATIONS", "1000").env("RATE_LIMIT", "off"))
    }

    /// Creates twenty products and a staff account, through a server.
    async fn fill(&self, server: &Process) -> String {
        let sql = connect(&self.owner_url).await;
        let products = "insert into categories (name) values ('Sport');
                        insert into products (category_id, name, price)
                        select 1, 'Product ' || i, i from generate_series(1, 20) i";
        sql.batch_execute(products).await.unwrap();
        let client = TestClient::new(server.address);
        let account = json!({"username": "sam", "email": "sam@example.com", "password": PASSWORD});
        assert_eq!(client.post("/api/register/", account).await.status, 201);
        sql.batch_execute("update users set is_staff = true").await.unwrap();
        let login = client.post("/api/login/", credentials()).await;
        login.json()["token"].as_str().unwrap().to_owned()
    }

    async fn drop_role(self) {
        let sql = connect(&self.owner_url).await;
        let role = &self.role;
        sql.batch_execute(&format!("drop owned by {role}; drop role {role}")).await.unwrap();
    }
}

fn credentials() -> Value {
    json!({"username": "sam", "password": PASSWORD})
}

/// Sends one request that must get `status`.
async fn send(
    clients: &mut KeepAliveClient,
    client: &TestClient,
    (method, path): (Method, &str),
    body: Option<Value>,
    status: u16,
) -> Value {
    let response = clients.send(client, method.clone(), path, body).await;
    let response = response.unwrap_or_else(|| panic!("{method} {path} got no response"));
    assert_eq!(response.status, status, "{method} {path}: {}", response.text());
    if response.body.is_empty() { Value::Null } else { response.json() }
}

/// Clients that send requests to two instances. Every write and revocation through one must show in the next request to
/// the other.
struct Load {
    /// Read-locked during an iteration, so that no request is in flight when the instances change.
    instances: Arc<RwLock<[SocketAddr; 2]>>,
    iterations: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(instance: SocketAddr, token: &str) -> Self {
        let mut load = Self {
            instances: Arc::new(RwLock::new([instance; 2])),
            iterations: Arc::default(),
            stop: Arc::default(),
            workers: Vec::new(),
        };
        let client = TestClient::new(instance).with_token(token);
        for product in 1..=3 {
            let (instances, iterations, stop) = (load.instances.clone(), load.iterations.clone(), load.stop.clone());
            let client = client.clone();
            load.workers.push(tokio::spawn(async move {
                let mut clients = KeepAliveClient::default();
                while !stop.load(SeqCst) {
                    let held = instances.read().await;
                    let [front, back] = *held;
                    let number = iterations.fetch_add(1, SeqCst);
                    let (front, back) = (client.on_instance(front), client.on_instance(back));
                    iterate(&mut clients, [&front, &back], product, number).await;
                }
            }));
        }
        load
    }

    /// Sends all further requests to these instances, and waits until some have been served.
    async fn move_to(&self, instances: [&Process; 2]) {
        *self.instances.write().await = instances.map(|instance| instance.address);
        self.wait_for_iterations().await;
    }

    async fn wait_for_iterations(&self) {
        let before = self.iterations.load(SeqCst);
        wait_until("requests are served", async || {
            assert!(!self.workers.iter().any(JoinHandle::is_finished), "a request failed");
            self.iterations.load(SeqCst) >= before + 30
        })
        .await;
    }

    async fn finish(self) {
        self.stop.store(true, SeqCst);
        for worker in self.workers {
            worker.await.expect("no request fails");
        }
    }
}

async fn iterate(clients: &mut KeepAliveClient, [front, back]: [&TestClient; 2], product: usize, number: usize) {
    let path = format!("/api/products/{product}/");
    let price = json!({"price": number});
    send(clients, back, (Method::PATCH, &path), Some(price), 200).await;
    let read = send(clients, front, (Method::GET, &path), None, 200).await;
    assert_eq!(read["price"].as_f64().map(|price| price.to_string()), Some(number.to_string()));
    send(clients, front, (Method::GET, "/api/products/?search=PRODUCT"), None, 200).await;
    send(clients, back, (Method::GET, "/api/products/"), None, 200).await;
    if number.is_multiple_of(5) {
        let login = send(clients, back, (Method::POST, "/api/login/"), Some(credentials()), 200).await;
        let pair = json!({"refresh": login["refresh"]});
        let pair = send(clients, front, (Method::POST, "/api/token/refresh/"), Some(pair), 200).await;
        let token = pair["token"].as_str().unwrap();
        let (front, back) = (&front.with_token_only(token), &back.with_token_only(token));
        send(clients, front, (Method::GET, "/api/me/"), None, 200).await;
        send(clients, back, (Method::POST, "/api/logout/"), None, 204).await;
        send(clients, front, (Method::GET, "/api/me/"), None, 401).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn previous_release_serves_during_migration_and_after_rollback() {
    let Some(program) = previous_program() else { return };
    let (old, new) = (|| process::program(&program), || process::command(&[]));
    let shop = Shop::create().await;
    let mut migrate = old();
    migrate.arg("migrate");
    shop.run(migrate);
    let first = shop.serve(old(), false);
    let token = shop.fill(&first).await;
    let load = Load::start(first.address, &token);
    load.wait_for_iterations().await;

    // the deploy: the new program migrates and starts while the old one serves
    let mut migrated = shop.serve(new(), true);
    load.move_to([&first, &migrated]).await;
    load.move_to([&migrated, &first]).await;
    let mut migrate = new();
    migrate.arg("migrate");
    shop.run(migrate);
    let mut serving = shop.serve(new(), false);
    load.move_to([&serving, &first]).await;
    load.move_to([&serving, &migrated]).await;
    load.move_to([&first, &serving]).await;
    assert!(migrated.stop().success());

    // the rollback: the old program starts on the new schema, and the new one stops
    let rolled_back = shop.serve(old(), true);
    load.move_to([&rolled_back, &first]).await;
    assert!(serving.stop().success());
    load.wait_for_iterations().await;
    load.finish().await;
    drop((first, rolled_back));
    shop.drop_role().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn previous_release_migrates_and_checks_newer_schema() {
    let Some(program) = previous_program() else { return };
    let shop = Shop::create().await;
    shop.run(process::command(&["migrate"]));
    for _ in 0..2 {
        let mut migrate = process::program(&program);
        migrate.arg("migrate");
        let output = shop.run(migrate);
        assert!(output.contains("provisioned role"), "{output}");
        let mut check = process::program(&program);
        check.arg("check");
        assert!(shop.run(check).contains("ok   schema"));
        // the newer program still has its privileges
        let server = shop.serve(process::command(&[]), false);
        let client = TestClient::new(server.address);
        assert_eq!(client.get("/readyz").await.status, 200);
        assert_eq!(client.post("/api/login/", credentials()).await.status, 401);
        drop(server);
        shop.run(process::command(&["migrate"]));
    }
    shop.drop_role().await;
}
