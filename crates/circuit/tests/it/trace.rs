//! Trace ids as they stand in headers.

use circuit::TraceId;

#[test]
fn valid_headers_give_their_trace() {
    let id = "0af7651916cd43dd8448eb211c80319c";
    let headers = [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00 ",
        // A later version may append fields (section 4.3.1).
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    ];
    for header in headers {
        let trace = TraceId::from_traceparent(header).expect(header);
        assert_eq!(trace.to_string(), id);
        assert_eq!(TraceId::from_bytes(trace.to_bytes()), Some(trace));
    }
}

#[test]
fn invalid_headers_give_none() {
    let headers = [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ];
    for header in headers {
        assert_eq!(TraceId::from_traceparent(header), None, "{header}");
    }
    assert!(TraceId::from_bytes([0; 16]).is_none());
}
