//! The limit of this stack on this machine: a bare hyper server that answers every request with the same fixed bytes,
//! without a look at its path, without accounts, without a cache.
//!
//!     cargo run --release --example limit -- 127.0.0.1:8001 FILE

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(file)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: limit ADDRESS FILE");
    };
    let body = Bytes::from(std::fs::read(file)?);
    let listener = TcpListener::bind(address.parse::<SocketAddr>()?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let body = body.clone();
        tokio::spawn(async move {
            let service = service_fn(|_| {
                let mut reply = Response::new(Full::new(body.clone()));
                let json = header::HeaderValue::from_static("application/json");
                reply.headers_mut().insert(header::CONTENT_TYPE, json);
                async move { Ok::<_, Infallible>(reply) }
            });
            // a client that leaves is no news
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}
