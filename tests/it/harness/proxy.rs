//! A TCP proxy that injects network failures between the server under test and PostgreSQL or Redis.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// Bytes are forwarded.
    Open,
    /// Connections are closed, new ones at once.
    Cut,
    /// Connections stay open and no byte is forwarded.
    Silent,
    /// Bytes to the server are held.
    SilentToServer,
    /// Bytes from the server are held.
    SilentFromServer,
    /// Bytes are forwarded after [`DELAY`].
    Slow,
    /// Bytes from the server are replaced by others.
    Garbled,
}

impl LinkState {
    fn holds(self, is_from_server: bool) -> bool {
        match self {
            Self::Silent => true,
            Self::SilentToServer => !is_from_server,
            Self::SilentFromServer => is_from_server,
            _ => false,
        }
    }
}

/// Delay of [`LinkState::Slow`] in each direction.
const DELAY: Duration = Duration::from_millis(30);

pub struct Proxy {
    pub address: SocketAddr,
    state: watch::Sender<LinkState>,
    /// `host:port`
    server: watch::Sender<String>,
}

impl Proxy {
    /// Starts a proxy in front of `server` (`host:port`) on a port of its own.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, state_of_connection) = watch::channel(LinkState::Open);
        let (server, server_of_connection) = watch::channel(server);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server_of_connection.clone(), state_of_connection.clone()));
            }
        });
        Self { address, state, server }
    }

    pub fn set_state(&self, state: LinkState) {
        self.state.send_replace(state);
    }

    /// Closes the connections, and forwards new ones to this server (`host:port`).
    pub fn set_server(&self, server: String) {
        self.server.send_replace(server);
    }

    /// Closes the connections; bytes that are held are lost.
    pub fn close_connections(&self) {
        self.server.send_modify(|_| ());
    }
}

async fn forward(client: TcpStream, mut server: watch::Receiver<String>, mut state: watch::Receiver<LinkState>) {
    match state.wait_for(|state| *state != LinkState::Silent).await.map(|state| *state) {
        Ok(LinkState::Cut) | Err(_) => return,
        Ok(_) => {}
    }
    let address = server.borrow_and_update().clone();
    let Ok(socket) = TcpStream::connect(address).await else { return };
    for socket in [&client, &socket] {
        let _ = socket.set_nodelay(true);
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), socket.into_split());
    tokio::select! {
        () = copy(from_client, to_server, state.clone(), false) => {}
        () = copy(from_server, to_client, state.clone(), true) => {}
        _ = state.wait_for(|state| *state == LinkState::Cut) => {}
        // the sender is dropped with the proxy, and its connections go on
        Ok(()) = server.changed() => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<LinkState>,
    is_from_server: bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let Ok(now) = state.wait_for(|state| !state.holds(is_from_server)).await.map(|state| *state) else { return };
        match now {
            LinkState::Slow => tokio::time::sleep(DELAY).await,
            LinkState::Garbled if is_from_server => bytes[..read].fill(b'?'),
            _ => {}
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
