//! The list of all products in chunks: its bytes, and the memory of its readers.

use std::{io::Read, process::Command};

use flate2::bufread::GzDecoder;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::harness::{TestApp, TestAppBuilder, TestClient, product_names, wait_until};

/// Returns the list of all products, put together from its pages.
async fn list_from_pages(user: &TestClient) -> String {
    let mut rows = Vec::new();
    for page in 1.. {
        let response = user.get(&format!("/api/products/?page={page}&page_size=1000")).await;
        if response.status == 404 {
            break;
        }
        let text = response.text();
        rows.push(text[1..text.len() - 1].to_owned());
    }
    format!("[{}]", rows.join(","))
}

/// Returns the body that curl decompresses.
async fn curl(user: &TestClient) -> Vec<u8> {
    let url = format!("http://{}/api/products/", user.address);
    let authorization = format!("Authorization: Bearer {}", user.token());
    let run = move || Command::new("curl").args(["-sS", "--compressed", "-H", &authorization, &url]).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn list_in_chunks_has_the_same_bytes_on_every_instance() {
    let app = TestApp::spawn().await;
    app.seed_products(5000).await;
    let following = app.create_user("ann").await;
    let other = app.start_instance().await;
    let writes = [
        "update products set name = 'x'",
        "update products set name = 'Changed' where id = 2500",
        "insert into products (id, category_id, name, price) values (-5, 1, 'First', 1), (1000000, 1, 'Last', 1)",
        "delete from products where id between 1000 and 1999",
        "update products set description = repeat('long ', 60000) where id = 3000",
        "delete from products where id = 3000",
        "update categories set name = 'Games'",
    ];
    for write in writes {
        app.batch_execute(write).await;
        let cold = app.start_instance().await;
        let cold = following.on_instance(cold.address);
        let expected = list_from_pages(&following).await;
        let mut etags = Vec::new();
        for user in [&following, &following.on_instance(other.address), &cold] {
            let list = user.get("/api/products/").await;
            assert!(list.text() == expected, "{write}");
            let gzip = user.with_header("accept-encoding", "gzip").get("/api/products/").await;
            let (mut json, mut rest) = (String::new(), &*gzip.body);
            GzDecoder::new(&mut rest).read_to_string(&mut json).unwrap();
            assert!(json == expected && rest.is_empty(), "{write}: one member with the same list");
            assert!(gzip.body.len() < list.body.len() / 3);
            assert_eq!(user.get("/api/products/").await.header("cache-status"), "TestShop; hit; detail=memory");
            etags.push((list.header("etag").to_owned(), gzip.header("etag").to_owned(), gzip.body));
        }
        assert!(etags[0].0 != etags[0].1 && etags.iter().all(|etag| *etag == etags[0]), "{write}");
        assert!(curl(&cold).await == expected.as_bytes());
        let not_modified = cold.with_header("if-none-match", &etags[0].0).get("/api/products/").await;
        assert_eq!((not_modified.status.as_u16(), not_modified.body.len()), (304, 0));
    }
}

/// Requests the list and reads only the beginning of its head.
async fn read_beginning(user: &TestClient) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(user.address).await.unwrap();
    let token = user.token();
    let request = format!("GET /api/products/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 15];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_of_many_versions_share_unchanged_chunks() {
    let app = TestAppBuilder::default().with("statement-timeout", "60s").with("redis-url", "").spawn().await;
    app.seed_products(200).await;
    // the list, of 4 MB, is larger than the socket buffers
    app.execute("update products set description = repeat('x', 20000)", &[]).await;
    let user = app.create_user("ann").await;
    let length = user.get("/api/products/").await.body.len();
    let mut readers = Vec::new();
    for _ in 0..10 {
        app.execute("update products set price = price + 1 where id = 150", &[]).await;
        readers.push(read_beginning(&user).await);
    }
    // each version has its own chunk of at most 532 kB
    let in_flight = app.metric("testshop_response_bytes_in_flight").await;
    #[expect(clippy::cast_precision_loss)]
    let (at_least, at_most) = (length as f64 / 2.0, length as f64 + 10.0 * 532e3);
    assert!((at_least..at_most).contains(&in_flight), "{in_flight} bytes of lists of {length} bytes");
}

#[tokio::test]
async fn changes_without_triggers_appear_when_everything_is_logged() {
    let app = TestAppBuilder::default().with("redis-url", "").spawn().await;
    app.seed_products(1000).await;
    let user = app.create_user("ann").await;
    assert!(user.get("/api/products/").await.body.len() > 64 << 10, "a smaller list is read completely");
    app.batch_execute(
        "alter table products disable trigger log_update;
         update products set name = 'Unlogged' where id = 1;
         alter table products enable trigger log_update;
         update products set name = 'Logged' where id = 2",
    )
    .await;
    let list = user.get("/api/products/").await.json();
    assert_eq!(product_names(&list)[..3], ["Product 1", "Logged", "Product 3"], "only the logged change is read");
    app.batch_execute("insert into catalogue_changes (transaction, everything) values (pg_current_xact_id(), true)")
        .await;
    let list = user.get("/api/products/").await.json();
    assert_eq!(product_names(&list)[..3], ["Unlogged", "Logged", "Product 3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_is_streamed_while_its_fill_takes_long() {
    let app = TestAppBuilder::default().with("redis-url", "").with("db-pool-size", 1).spawn().await;
    app.seed_products(60).await;
    let user = app.create_user("ann").await;
    app.delay_product_rows(0.0).await;
    // slow for the connections that exist now, and so not for that of the stream
    app.batch_execute(
        "create table slow_backends as select pid from pg_stat_activity where datname = current_database();
         grant select on slow_backends to public;
         create or replace function slow(bigint) returns bigint language plpgsql as $$
         begin
             perform pg_sleep(0.12) from slow_backends where pid = pg_backend_pid();
             return $1;
         end
         $$",
    )
    .await;
    let list = user.get("/api/products/").await;
    assert_eq!(list.header("cache-status"), "TestShop; fwd=miss; detail=streamed");
    assert_eq!(list.json().as_array().unwrap().len(), 60);
    wait_until("the fill has finished", async || app.metric("testshop_cache_bytes").await > 0.0).await;
    let again = user.get("/api/products/").await;
    assert_eq!((again.header("cache-status"), again.text()), ("TestShop; hit; detail=memory", list.text()));
}
