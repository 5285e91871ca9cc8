//! A small blocking HTTP/1.1 client with keep-alive.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a response may take when the test does not say: long enough for every answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// One connection at a time to one server, kept open between requests.
#[derive(Debug)]
pub(crate) struct Client {
    server: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
    patience: Duration,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self {
            server,
            connection: None,
            patience: PATIENCE,
        }
    }

    /// Gives up on a response after this time; then the connection is dropped.
    pub(crate) fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience.unwrap_or(PATIENCE);
    }

    /// Posts a command to a device.
    pub(crate) fn command(
        &mut self,
        device: &str,
        key: &str,
        timeout_ms: u64,
        payload: &str,
    ) -> io::Result<Response> {
        let path = format!("/v1/devices/{device}/commands");
        let timeout = timeout_ms.to_string();
        let headers = [("Idempotency-Key", key), ("Mainstay-Timeout-Ms", &timeout)];
        self.request("POST", &path, &headers, payload.as_bytes())
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Response> {
        // The server may have closed the connection in its idle time; reading again harms nobody.
        let kept_alive = self.connection.is_some();
        match self.request("GET", path, &[], b"") {
            Err(_) if kept_alive => self.request("GET", path, &[], b""),
            result => result,
        }
    }

    /// Sends one request and reads its response. After an error the next request connects anew.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(self.server)?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        connection.get_ref().set_read_timeout(Some(self.patience))?;
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.server);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        connection.get_mut().write_all(&bytes)?;
        let response = Response::read(&mut connection)?;
        let closes = response
            .header("connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("close"));
        self.connection = (!closes).then_some(connection);
        Ok(response)
    }
}

impl Response {
    /// The first header of this name, whatever its case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }

    /// The `code` of a problem+json answer; empty for other answers.
    pub(crate) fn code(&self) -> String {
        if self.header("content-type") != Some("application/problem+json") {
            return String::new();
        }
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The stored answer of an earlier request.
    pub(crate) fn is_replayed(&self) -> bool {
        self.header("idempotency-replayed") == Some("true")
    }

    fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let status_line = read_line(from)?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|text| text.parse().ok());
        let mut response = Self {
            status: status.ok_or_else(broken)?,
            ..Self::default()
        };
        loop {
            let line = read_line(from)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(broken)?;
            response
                .headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
        if response.header("transfer-encoding") == Some("chunked") {
            while read_chunk(from, &mut response.body)? {}
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| broken())?;
            response.body.resize(length, 0);
            from.read_exact(&mut response.body)?;
        }
        Ok(response)
    }
}

fn read_chunk(from: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<bool> {
    let size = read_line(from)?;
    let size = usize::from_str_radix(size.trim(), 16).map_err(|_| broken())?;
    let start = body.len();
    body.resize(start + size, 0);
    from.read_exact(&mut body[start..])?;
    read_line(from)?;
    Ok(size > 0)
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 || !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is not HTTP/1.1")
}
