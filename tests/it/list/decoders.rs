//! The decoders of other programs inflate the compressed list, which is put together from chunks, to its JSON.

use std::{io::ErrorKind, path::Path, process::Command};

use serde_json::json;

use crate::{
    browser::Driver,
    harness::{TestApp, TestClient, process::program},
    stress::record_result,
};

/// Python's gzip, and its zlib in small pieces.
const PYTHON: &str = r#"
import gzip, os, sys, urllib.request, zlib

headers = {"Authorization": "Bearer " + os.environ["TOKEN"], "Accept-Encoding": "gzip"}
with urllib.request.urlopen(urllib.request.Request(os.environ["URL"], headers=headers)) as response:
    assert response.headers["Content-Encoding"] == "gzip"
    body = response.read()
inflater = zlib.decompressobj(wbits=31)
inflated = b"".join(inflater.decompress(body[start : start + 97]) for start in range(0, len(body), 97))
assert inflater.eof and not inflater.unused_data
assert gzip.decompress(body) == inflated
sys.stdout.buffer.write(inflated)
"#;

/// Node's `fetch`, and its zlib.
const NODE: &str = r#"
import http from "node:http";
import { gunzipSync } from "node:zlib";

const headers = { authorization: `Bearer ${process.env.TOKEN}`, "accept-encoding": "gzip" };
const response = await fetch(process.env.URL, { headers });
if (response.headers.get("content-encoding") !== "gzip") throw new Error("the list is not compressed");
const fetched = Buffer.from(await response.arrayBuffer());
const body = await new Promise((resolve, reject) =>
    http.get(process.env.URL, { headers }, (raw) => raw.toArray().then(Buffer.concat).then(resolve, reject)));
if (!gunzipSync(body).equals(fetched)) throw new Error("fetch and zlib differ");
process.stdout.write(fetched);
"#;

/// Returns the encoding and the text of the list.
const BROWSER: &str = r#"
const [token, done] = arguments;
fetch("/api/products/", { headers: { authorization: `Bearer ${token}` } })
    .then(async (response) => done([response.headers.get("content-encoding"), await response.text()]))
    .catch((error) => done([String(error), ""]));
"#;

/// Returns what a command writes, or `None` if its program is not installed.
async fn output(mut command: Command) -> Option<Vec<u8>> {
    let output = match tokio::task::spawn_blocking(move || command.output()).await.unwrap() {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// Returns the JSON of the list that the decoder of a program inflates, or `None` if that is not installed.
async fn decode(name: &str, user: &TestClient) -> Option<Vec<u8>> {
    let (url, token) = (format!("http://{}/api/products/", user.address), user.token());
    let script = |interpreter: &str, arguments: &[&str]| {
        let mut command = program(Path::new(interpreter));
        command.args(arguments).env("URL", &url).env("TOKEN", token);
        command
    };
    match name {
        "curl" => {
            let mut command = Command::new("curl");
            command.args(["-sS", "--compressed", "-H", &format!("Authorization: Bearer {token}"), &url]);
            output(command).await
        }
        "Python" => output(script("python3", &["-c", PYTHON])).await,
        "Node.js" => output(script("node", &["--input-type=module", "-e", NODE])).await,
        _ => {
            let driver = Driver::start()?;
            let page = driver.open(&format!("http://{}/docs", user.address), "en").await;
            let response = page.client.execute_async(BROWSER, vec![json!(token)]).await.unwrap();
            page.close().await;
            assert_eq!(response[0], "gzip", "{response}");
            Some(response[1].as_str().unwrap().as_bytes().to_vec())
        }
    }
}

#[ignore = "starts a browser and other programs: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn decoders_of_other_programs_inflate_the_list() {
    let app = TestApp::spawn().await;
    app.seed_products(20_000).await;
    let user = app.create_user("ann").await;
    assert_eq!(user.get("/api/products/").await.status, 200);
    app.batch_execute(
        "update products set name = 'Чайник' where id in (3, 9000);
         update products set description = string_agg from (select string_agg(md5(i::text), ' ')
           from generate_series(1, 20000) i) random where id = 12000;
         delete from products where id between 15000 and 15899",
    )
    .await;
    let expected = user.get("/api/products/").await.body;
    assert_eq!(app.metric("testshop_cache_incremental_fills_total").await, 1.0);
    let (mut equal, mut absent) = (Vec::new(), Vec::new());
    for name in ["Python", "curl", "Node.js", "Chromium"] {
        match decode(name, &user).await {
            Some(json) => {
                assert!(json == expected, "{name} has another list: {} of {} bytes", json.len(), expected.len());
                equal.push(name);
            }
            None => absent.push(name),
        }
    }
    let absent = if absent.is_empty() { "none".to_owned() } else { absent.join(", ") };
    let observed = format!(
        "{} bytes of JSON, equal in {}; not installed and so not tested: {absent}",
        expected.len(),
        equal.join(", ")
    );
    record_result("decoders of other programs inflate a list of many chunks after changes", &observed);
    assert!(equal.contains(&"Python"), "Python is installed");
}
