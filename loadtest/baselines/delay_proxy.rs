//! A TCP proxy that delays each direction, for measurements with PostgreSQL at a distance.
//!
//!     cargo run --release --example delay_proxy -- 127.0.0.1:0 127.0.0.1:5432 0.5
//!
//! The last argument is the delay of each direction in milliseconds. Two threads per direction: a runtime's timers have a
//! resolution of 1 ms.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// The chunks of one direction that are on their way.
const MAX_CHUNKS: usize = 1024;
const CHUNK_BYTES: usize = 64 << 10;

type Chunk = (Instant, Vec<u8>);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, target, millis] = arguments.as_slice() else {
        anyhow::bail!("usage: delay_proxy ADDRESS TARGET MILLISECONDS");
    };
    let delay = Duration::try_from_secs_f64(millis.parse::<f64>()? / 1000.0)?;
    let listener = TcpListener::bind(address)?;
    println!("listening on http://{}", listener.local_addr()?);
    for client in listener.incoming() {
        let client = client?;
        let Ok(server) = TcpStream::connect(target) else { continue };
        for (from, to) in [(&client, &server), (&server, &client)] {
            from.set_nodelay(true)?;
            forward(from.try_clone()?, to.try_clone()?, delay);
        }
    }
    Ok(())
}

/// Starts the threads that copy `from` to `to`.
fn forward(from: TcpStream, to: TcpStream, delay: Duration) {
    let (sender, receiver) = sync_channel(MAX_CHUNKS);
    thread::spawn(move || receive(from, &sender, delay));
    thread::spawn(move || send(to, &receiver));
}

fn receive(mut from: TcpStream, chunks: &SyncSender<Chunk>, delay: Duration) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if chunks.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
            break;
        }
    }
}

/// Sends each chunk when its time has come, and then the end of the stream.
fn send(mut to: TcpStream, chunks: &Receiver<Chunk>) {
    for (due, bytes) in chunks {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // the other side may have closed the connection already
    let _ = to.shutdown(Shutdown::Both);
}
