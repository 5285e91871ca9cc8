//! As much of an HTTP client as the tests need, so that they see every byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::rig::PATIENCE;

#[derive(Clone)]
pub(crate) struct Request {
    line: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    chunked: bool,
}

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        Self::new(&format!("GET {path} HTTP/1.1"))
    }

    pub(crate) fn post(path: &str) -> Self {
        Self::new(&format!("POST {path} HTTP/1.1"))
    }

    fn new(line: &str) -> Self {
        let headers = vec![("Host".into(), b"localhost".to_vec())];
        Self {
            line: line.into(),
            headers,
            body: Vec::new(),
            chunked: false,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(there, _)| there != name);
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Sends the body in chunks instead of with a Content-Length.
    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    pub(crate) fn timeout_ms(self, ms: u64) -> Self {
        self.header("Mainstay-Timeout-Ms", ms.to_string())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\nConnection: close\r\n", self.line).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        if self.chunked {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in self.body.chunks(1_000) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(
                format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes(),
            );
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    pub(crate) fn send(&self, addr: SocketAddr) -> Response {
        let mut stream = self.start(addr);
        Response::read(&mut stream)
    }

    /// Sends the request and leaves its answer alone.
    pub(crate) fn start(&self, addr: SocketAddr) -> TcpStream {
        let mut stream = connect(addr);
        // A server that has seen enough may have closed already.
        drop(stream.write_all(&self.bytes()));
        stream
    }

    /// Sends the head and waits until the server reads the body, of which nothing has come.
    pub(crate) fn start_before_body(&self, addr: SocketAddr) -> TcpStream {
        let mut stream = connect(addr);
        let asking = self.clone().header("Expect", "100-continue").bytes();
        stream
            .write_all(&asking[..asking.len() - self.body.len()])
            .unwrap();
        let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, expected);
        stream
    }
}

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Reads until the server closes.
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        if let Err(error) = stream.read_to_end(&mut bytes) {
            assert!(!bytes.is_empty(), "no answer: {error}");
        }
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("not HTTP: {:?}", String::from_utf8_lossy(bytes)));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let body = bytes[end + 4..].to_vec();
        Self {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(there, _)| there == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }

    pub(crate) fn replayed(&self) -> bool {
        self.header("idempotency-replayed") == Some("true")
    }

    /// Asserts a problem (RFC 9457) of this status and code, and returns it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        for text in ["title", "detail"] {
            assert!(!problem[text].as_str().unwrap().is_empty(), "{problem}");
        }
        problem
    }

    /// Asserts a first-hand answer with this JSON.
    #[track_caller]
    pub(crate) fn done(&self, body: &str) {
        assert_eq!((self.status, self.text().as_str()), (200, body));
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(!self.replayed());
    }

    /// Asserts a replayed answer with this JSON.
    #[track_caller]
    pub(crate) fn replay_of(&self, body: &str) {
        assert_eq!((self.status, self.text().as_str()), (200, body));
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.replayed());
    }
}
