//! On tokio's current_thread runtime: a task per connection, whose buffer exists only while it is used.

use std::io::ErrorKind;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::{Result, listener};

/// On the stack for the length of a read: a task that waits holds none.
const BUFFER: usize = 4096;

pub(super) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener()?)?;
        loop {
            let (connection, _) = listener.accept().await?;
            tokio::spawn(echo(connection));
        }
    })
}

async fn echo(mut connection: TcpStream) {
    while connection.readable().await.is_ok() {
        let Some(left) = read_and_write(&connection) else {
            return;
        };
        if !left.is_empty() && connection.write_all(&left).await.is_err() {
            return;
        }
    }
}

/// Sends back what is there, and returns what the socket did not take, or `None` at the end.
fn read_and_write(connection: &TcpStream) -> Option<Vec<u8>> {
    let mut buffer = [0; BUFFER];
    let count = match connection.try_read(&mut buffer) {
        Ok(0) => return None,
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(Vec::new()),
        Err(_) => return None,
    };
    match connection.try_write(&buffer[..count]) {
        Ok(sent) => Some(buffer[sent..count].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(buffer[..count].to_vec()),
        Err(_) => None,
    }
}
