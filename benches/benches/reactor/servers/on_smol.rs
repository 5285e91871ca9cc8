//! On smol: a task per connection on one executor, whose buffer exists only while it is used.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use smol::io::AsyncWriteExt;
use smol::{Async, LocalExecutor};

use super::{Result, listener};

/// On the stack for the length of a read: a task that waits holds none.
const BUFFER: usize = 4096;

pub(super) fn serve() -> Result<()> {
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let listener = Async::<TcpListener>::new_nonblocking(listener()?)?;
        loop {
            let (connection, _) = listener.accept().await?;
            executor.spawn(echo(connection)).detach();
        }
    }))
}

async fn echo(mut connection: Async<TcpStream>) {
    while connection.readable().await.is_ok() {
        let Some(left) = read_and_write(connection.get_ref()) else {
            return;
        };
        if !left.is_empty() && connection.write_all(&left).await.is_err() {
            return;
        }
    }
}

/// Sends back what is there, and returns what the socket did not take, or `None` at the end.
fn read_and_write(mut connection: &TcpStream) -> Option<Vec<u8>> {
    let mut buffer = [0; BUFFER];
    let count = match connection.read(&mut buffer) {
        Ok(0) => return None,
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(Vec::new()),
        Err(_) => return None,
    };
    match connection.write(&buffer[..count]) {
        Ok(sent) => Some(buffer[sent..count].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(buffer[..count].to_vec()),
        Err(_) => None,
    }
}
