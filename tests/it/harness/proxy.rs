//! A line between the shop and one of its servers that can be cut, fall silent, limp or speak nonsense.

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
pub enum Line {
    /// Everything goes through.
    Open,
    /// Connections break, new ones are closed at once.
    Cut,
    /// Connections stay, and nothing goes through.
    Silent,
    /// Everything goes through, late.
    Slow,
    /// What the server says arrives as other bytes.
    Garbled,
}

/// How late, each way.
const DELAY: Duration = Duration::from_millis(30);

pub struct Proxy {
    pub address: SocketAddr,
    line: watch::Sender<Line>,
}

impl Proxy {
    pub async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (line, state) = watch::channel(Line::Open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), state.clone()));
            }
        });
        Self { address, line }
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn carry(client: TcpStream, server: String, mut line: watch::Receiver<Line>) {
    match line.wait_for(|line| *line != Line::Silent).await.map(|line| *line) {
        Ok(Line::Cut) | Err(_) => return,
        Ok(_) => {}
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    let ((asked, answer), (answered, ask)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pump(asked, ask, line.clone(), false) => {}
        () = pump(answered, answer, line.clone(), true) => {}
        _ = line.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>, answers: bool) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let Ok(state) = line.wait_for(|line| *line != Line::Silent).await.map(|line| *line) else { return };
        match state {
            Line::Slow => tokio::time::sleep(DELAY).await,
            Line::Garbled if answers => bytes[..read].fill(b'?'),
            _ => {}
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
