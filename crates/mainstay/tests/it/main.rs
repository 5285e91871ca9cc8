//! One touch of each member, so that a broken re-export is noticed here.
#![cfg(feature = "full")]

#[test]
fn every_member_is_there() {
    use mainstay::{canon_ser, circuit, conn_reactor, ebpf_ring, gateway, heartbeat_codec};
    use mainstay::{idem_store, timerwheel};

    assert_eq!(canon_ser::json::to_vec(&[1.0]).unwrap(), b"[1]");
    assert!(canon_ser::rules::RuleBook::new().sets().is_empty());
    assert_eq!(canon_ser::digest::blake3_bytes(b"").len(), 32);
    assert_eq!(circuit::Backoff::new().tries(), 0);
    assert!(conn_reactor::Options::default().shards > 0);
    assert!(heartbeat_codec::frame::decode(&[], 8).is_ok());
    assert_eq!(idem_store::Fingerprint([0; 32]).0.len(), 32);
    assert!(timerwheel::Wheel::<()>::new(0).is_empty());
    assert!(gateway::proto::DeviceId::parse(b"pump-7").is_ok());
    assert!(gateway::server::Config::default().check().is_ok());
    assert!(gateway::device::Answer::json("1") == gateway::device::Answer::json("1"));
    assert!(std::any::type_name::<ebpf_ring::RingReader>().contains("RingReader"));
}
