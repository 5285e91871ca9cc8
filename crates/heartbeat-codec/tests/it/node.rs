//! A node's beat in the forms of other languages.

use heartbeat_codec::node::NodeBeat;
use proptest::prelude::*;

use crate::vectors::vectors;

fn parse(left: &str) -> NodeBeat {
    let mut fields = left.split(' ');
    let mut field = || fields.next().expect("timestamp node load");
    NodeBeat {
        timestamp_ms: field().parse().expect("a timestamp"),
        node_id: field().parse().expect("a node"),
        load_percent: Some(field())
            .filter(|load| *load != "-")
            .map(|load| load.parse().expect("a load")),
    }
}

fn any_beat() -> impl Strategy<Value = NodeBeat> {
    let load = prop::option::of(0u8..=100);
    (any::<u64>(), any::<u64>(), load).prop_map(|(timestamp_ms, node_id, load_percent)| NodeBeat {
        timestamp_ms,
        node_id,
        load_percent,
    })
}

#[cfg(feature = "serde")]
mod json {
    use super::*;

    #[test]
    fn it_is_as_documented() {
        for (left, right) in vectors("json") {
            assert_eq!(serde_json::to_string(&parse(left)).expect("JSON"), right);
            assert_eq!(
                serde_json::from_str::<NodeBeat>(right).expect(left),
                parse(left)
            );
        }
    }

    #[test]
    fn a_load_is_checked() {
        let with = |load: &str| {
            let text = format!(r#"{{"timestamp_ms":1,"node_id":2,"load_percent":{load}}}"#);
            serde_json::from_str::<NodeBeat>(&text)
        };
        assert_eq!(with("100").expect("full").load_percent, Some(100));
        assert_eq!(with("null").expect("unknown").load_percent, None);
        for load in ["101", "255", "256", "-1", "1.5", "\"1\""] {
            assert!(with(load).is_err(), "{load}");
        }
        let error = with("101").expect_err("too much").to_string();
        assert!(error.contains("a load of 0 to 100 percent"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(beat in any_beat()) {
            let text = serde_json::to_string(&beat).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<NodeBeat>(&text).expect("ours"), beat);
        }
    }
}

#[cfg(feature = "protobuf")]
mod protobuf {
    use super::*;
    use crate::vectors::bytes;

    fn encode(beat: &NodeBeat) -> Vec<u8> {
        let mut out = Vec::new();
        beat.encode_protobuf(&mut out);
        out
    }

    #[test]
    fn it_is_as_documented() {
        for (left, right) in vectors("protobuf") {
            assert_eq!(encode(&parse(left)), bytes(right), "{left}");
            assert_eq!(NodeBeat::decode_protobuf(&bytes(right)), Ok(parse(left)));
        }
    }

    #[test]
    fn a_load_is_checked_and_unknown_fields_are_skipped() {
        let error = NodeBeat::decode_protobuf(&[0x18, 101]).expect_err("too much");
        assert!(error.is_bad_load());
        assert_eq!(
            error.to_string(),
            "the load is 101; send 0 to 100, or leave it out"
        );
        let later = NodeBeat::decode_protobuf(&[0x10, 7, 0x22, 2, 1, 2]).expect("a field more");
        assert_eq!(later.node_id, 7);
        let cut = NodeBeat::decode_protobuf(&[0x10]).expect_err("cut short");
        assert!(!cut.is_bad_load());
    }

    #[test]
    fn a_load_above_100_is_written_as_100() {
        let beat = NodeBeat {
            load_percent: Some(200),
            ..NodeBeat::default()
        };
        assert_eq!(encode(&beat), [0x18, 100]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(beat in any_beat()) {
            prop_assert_eq!(NodeBeat::decode_protobuf(&encode(&beat)), Ok(beat));
        }

        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(beat) = NodeBeat::decode_protobuf(&bytes) {
                prop_assert_eq!(NodeBeat::decode_protobuf(&encode(&beat)), Ok(beat));
            }
        }
    }
}
