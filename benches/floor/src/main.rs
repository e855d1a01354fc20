//! The floor of the benchmark: a proxy that forwards each line and does nothing else. No look-up, no log, no limits,
//! no second next hop for a message: what passing SMTP through this runtime on this machine costs at the least.
//!
//! `floor LISTEN SINK...`: each connection goes to the next sink in turn. Pipelining is not understood (smtp-source
//! does not pipeline): one line, one reply.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

type Peer = BufReader<TcpStream>;

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().ok_or_else(|| io::Error::other("usage: floor LISTEN SINK..."))?;
    let sinks =
        arguments.map(|sink| sink.parse().map_err(io::Error::other)).collect::<io::Result<Vec<SocketAddr>>>()?;
    let listener = TcpListener::bind(listen).await?;
    for sink in sinks.into_iter().cycle() {
        let (client, _) = listener.accept().await?;
        tokio::spawn(session(client, sink));
    }
    Ok(())
}

/// One client's connection with a connection of its own to the sink, to the end of either.
async fn session(client: TcpStream, sink: SocketAddr) -> io::Result<()> {
    let (mut client, mut sink) = (peer(client)?, peer(TcpStream::connect(sink).await?)?);
    let mut line = Vec::new();
    reply(&mut sink, &mut client, &mut line).await?; // the greeting
    loop {
        line.clear();
        if client.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        sink.write_all(&line).await?;
        reply(&mut sink, &mut client, &mut line).await?;
        if line.starts_with(b"354") {
            content(&mut client, &mut sink).await?;
            reply(&mut sink, &mut client, &mut line).await?;
        }
    }
}

fn peer(stream: TcpStream) -> io::Result<Peer> {
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(64 * 1024, stream))
}

/// Passes one reply on, all its lines; the last one stays in `line`.
async fn reply(sink: &mut Peer, client: &mut Peer, line: &mut Vec<u8>) -> io::Result<()> {
    loop {
        line.clear();
        if sink.read_until(b'\n', line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        client.write_all(line).await?;
        if line.get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}

/// Passes the content on in the blocks that arrive, up to the block that ends with the lone dot.
async fn content(client: &mut Peer, sink: &mut Peer) -> io::Result<()> {
    let mut tail = *b"\0\0\0\r\n";
    while &tail != b"\r\n.\r\n" {
        let block = client.fill_buf().await?;
        let length = block.len();
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let last = length.min(tail.len());
        tail.rotate_left(last);
        tail[5 - last..].copy_from_slice(&block[length - last..]);
        sink.write_all(block).await?;
        client.consume(length);
    }
    Ok(())
}
