//! The page behind a proxy that removes a path prefix.

use std::{convert::Infallible, net::SocketAddr};

use http_body_util::{BodyExt, Either, Empty};
use hyper::{
    Request, Response, Uri,
    body::{Bytes, Incoming},
    client::conn::http1::handshake,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::{DIALOG, MAIN, Page};
use crate::harness::{PASSWORD, TestAppBuilder};

const PREFIX: &str = "/shop/api";

type Body = Either<Incoming, Empty<Bytes>>;

/// Forwards a request without the prefix; paths without it are not found.
async fn forward(server: SocketAddr, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let target = request.uri().path_and_query().unwrap().as_str().to_owned();
    let Some(rest) = target.strip_prefix(PREFIX) else {
        let not_found = Response::builder().status(404).body(Either::Right(Empty::new()));
        return Ok(not_found.unwrap());
    };
    *request.uri_mut() = rest.parse::<Uri>().unwrap();
    let stream = TcpStream::connect(server).await.unwrap();
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request.map(BodyExt::boxed)).await.unwrap();
    Ok(response.map(Either::Left))
}

async fn serve(listener: TcpListener, server: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = service_fn(move |request| forward(server, request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

#[tokio::test]
async fn page_works_under_the_prefix_of_public_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{PREFIX}", listener.local_addr().unwrap());
    let app = TestAppBuilder::default().with("public-url", &url).spawn().await;
    app.seed_products(450).await;
    app.create_staff("sam").await;
    tokio::spawn(serve(listener, app.server.address));
    let Some(page) = Page::open_in("en", &format!("{url}/admin")).await else { return };
    page.type_into(MAIN, "Username", "sam").await;
    page.type_into(MAIN, "Password", &format!("{PASSWORD}\u{e007}")).await;
    page.wait_until_live().await;
    // the URL of the next page begins with PUBLIC_URL
    page.browser.wait_for_text("Loaded: 200, more follow").await;
    page.scroll_until(1_000_000, "document.body.innerText.includes('Loaded: 4')").await;
    page.scroll_until(0, "document.querySelector('td.id').innerText === '1'").await;
    page.click(MAIN, "Product 1").await;
    page.replace(DIALOG, "Name", "Renamed").await;
    page.click(DIALOG, "Save").await;
    page.wait_until_closed().await;
    page.browser.wait_for(&format!("location.href.startsWith({:?})", format!("{url}/admin"))).await;
    page.finish().await;
}
