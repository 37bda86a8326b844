//! The clients in the README keep an exact copy of the list.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::spawn_with_products;
use crate::harness::{process::program, wait_until};

/// The number of lists that have been loaded.
const LISTS: &str = "testshop_http_requests_total{method=\"GET\",route=\"/api/products/\",status=\"200\"}";

/// Returns the code block of a language in the README, with a line replaced.
fn snippet(language: &str, line: &str, replacement: &str) -> String {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, rest) = readme.split_once(&format!("```{language}\n")).unwrap();
    let (code, _) = rest.split_once("```").unwrap();
    assert_eq!(code.matches(line).count(), 1, "{code}");
    code.replace(line, replacement)
}

/// A running client; it is killed when this is dropped.
struct RunningClient {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl RunningClient {
    /// Runs `code` with an interpreter. Returns `None` if that is not installed.
    fn start(interpreter: &str, arguments: &[&str], code: &str, shop: &str, token: &str) -> Option<Self> {
        let mut command = program(Path::new(interpreter));
        command.args(arguments).arg(code).env("SHOP", shop).env("TOKEN", token).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Some(Self { child, lines })
    }

    /// Reads copies until one is equal to the list.
    async fn assert_reaches(&mut self, list: &Value) {
        let reading = async {
            while let Some(line) = self.lines.recv().await {
                if serde_json::from_str::<Value>(&line).unwrap() == *list {
                    return;
                }
            }
            panic!("the client has ended");
        };
        let outcome = tokio::time::timeout(std::time::Duration::from_secs(30), reading).await;
        outcome.unwrap_or_else(|_| panic!("no copy equals {list}"));
    }
}

impl Drop for RunningClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the clients print of each product: the numbers of the languages differ.
fn copy_of(list: &Value) -> Value {
    let products = list.as_array().unwrap().iter();
    products.map(|product| json!([product["id"], product["name"], product["category_name"], product["tags"]])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_the_readme_follow_the_feed() {
    let (app, user) = spawn_with_products(5).await;
    let shop = format!("http://{}", app.server.address);
    let python = snippet(
        "python",
        "print(len(products), \"products\", flush=True)",
        "print(json.dumps([[p[\"id\"], p[\"name\"], p[\"category_name\"], p[\"tags\"]]
                      for _, p in sorted(products.items())]), flush=True)",
    );
    let javascript = snippet(
        "js",
        "console.log(products.size, \"products\");",
        "console.log(JSON.stringify([...products.values()].sort((a, b) => a.id - b.id)
            .map((p) => [p.id, p.name, p.category_name, p.tags])));",
    );
    let python = RunningClient::start("python3", &["-c"], &python, &shop, user.token()).expect("Python is installed");
    let mut clients = vec![python];
    match RunningClient::start("node", &["--input-type=module", "-e"], &javascript, &shop, user.token()) {
        Some(client) => clients.push(client),
        None => println!("skipped the client in JavaScript: Node.js is not installed"),
    }
    let expected = f64::from(u8::try_from(clients.len()).unwrap());
    wait_until("the clients listen", async || app.metric("testshop_change_listeners").await == expected).await;
    for sql in [
        "update products set name = 'Kettle' where id = 2",
        "delete from products where id = 3; update categories set name = 'Games'",
        "truncate product_tags",
        "insert into products (category_id, name, price) values (1, 'two words', 2); delete from products where id = 1",
    ] {
        let loaded = app.metric(LISTS).await;
        app.batch_execute(&format!("begin; {sql}; commit")).await;
        if sql.starts_with("truncate") {
            // the tokens have expired; a client that has loaded the list again prints the next change
            wait_until("the clients load the list", async || app.metric(LISTS).await == loaded + expected).await;
            continue;
        }
        let list = copy_of(&user.get("/api/products/").await.json());
        for client in &mut clients {
            client.assert_reaches(&list).await;
        }
    }
}
