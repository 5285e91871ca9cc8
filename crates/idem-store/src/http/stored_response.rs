//! A response as it is stored: the outcome of a key. The bytes are in docs/FORMAT.md.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};

const VERSION: u8 = 1;

/// Version, status, the chosen headers, body.
pub(super) fn encode(response: &Response<Bytes>, kept: &[HeaderName]) -> Vec<u8> {
    let chosen = kept.iter().flat_map(|name| {
        let values = response.headers().get_all(name);
        values.iter().map(move |value| (name, value))
    });
    let fits = |(_, value): &(&HeaderName, &HeaderValue)| value.len() <= usize::from(u16::MAX);
    let chosen: Vec<_> = chosen.filter(fits).take(usize::from(u16::MAX)).collect();
    let mut bytes = vec![VERSION];
    let number = |bytes: &mut Vec<u8>, n: usize| {
        let n = u16::try_from(n).expect("filtered, and names are shorter");
        bytes.extend_from_slice(&n.to_le_bytes());
    };
    number(&mut bytes, usize::from(response.status().as_u16()));
    number(&mut bytes, chosen.len());
    for (name, value) in chosen {
        number(&mut bytes, name.as_str().len());
        number(&mut bytes, value.len());
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes.extend_from_slice(response.body());
    bytes
}

/// The response; `None` when this is not what [`encode`] wrote.
pub(super) fn decode(bytes: Vec<u8>) -> Option<Response<Bytes>> {
    decode_from(&Bytes::from(bytes))
}

fn decode_from(bytes: &Bytes) -> Option<Response<Bytes>> {
    let mut reader = Reader(bytes);
    if reader.take(1)? != [VERSION] {
        return None;
    }
    let status = StatusCode::from_u16(reader.number()?).ok()?;
    let count = reader.number()?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    for _ in 0..count {
        let (name, value) = (reader.number()?, reader.number()?);
        let name = HeaderName::from_bytes(reader.take(name.into())?).ok()?;
        let value = HeaderValue::from_bytes(reader.take(value.into())?).ok()?;
        response.headers_mut().append(name, value);
    }
    *response.body_mut() = bytes.slice_ref(reader.0);
    Some(response)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let pair = self.take(2)?.try_into().expect("two bytes");
        Some(u16::from_le_bytes(pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;

    /// The example of docs/FORMAT.md.
    const GOLDEN: &[u8] = b"\x01\xc9\x00\x01\x00\x08\x00\x05\x00location/p/17{}";

    fn response() -> Response<Bytes> {
        Response::builder()
            .status(201)
            .header("location", "/p/17")
            .header("set-cookie", "secret")
            .body(Bytes::from_static(b"{}"))
            .expect("valid")
    }

    #[test]
    fn bytes_are_fixed_and_only_chosen_headers_are_kept() {
        let bytes = encode(&response(), &[header::LOCATION, header::ETAG]);
        assert_eq!(bytes, GOLDEN);
        let read = decode(bytes).expect("written here");
        assert_eq!(read.status(), 201);
        assert_eq!(read.headers().len(), 1);
        assert_eq!(read.headers()["location"], "/p/17");
        assert_eq!(&read.body()[..], b"{}");
    }

    #[test]
    fn what_is_cut_short_or_newer_is_no_response() {
        for end in 0..GOLDEN.len() - 2 {
            assert!(decode(GOLDEN[..end].to_vec()).is_none(), "{end}");
        }
        let mut newer = GOLDEN.to_vec();
        newer[0] = 2;
        assert!(decode(newer).is_none());
    }
}
