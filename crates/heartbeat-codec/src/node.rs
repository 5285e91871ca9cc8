//! A node's beat as others know it: a time, a name, a load. For relays, files and other languages.
//!
//! - feature `serde`: JSON, or whatever else serde writes: `{"timestamp_ms":1700000000000,"node_id":7,"load_percent":40}`
//! - feature `protobuf`: the message of the crate's `proto/heartbeat.proto`
//! - feature `batch`: [many at once](crate::batch), in about a byte each

/// One beat of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeBeat {
    /// When, in milliseconds; by convention since 1970 in UTC.
    pub timestamp_ms: u64,
    /// Who. Readers in JavaScript see only 53 bits of a number in JSON.
    pub node_id: u64,
    /// How busy, 0 to 100; `None` when the node does not say. Absent in JSON then.
    #[cfg_attr(
        feature = "serde",
        serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "json::load"
        )
    )]
    pub load_percent: Option<u8>,
}

#[cfg(feature = "serde")]
mod json {
    use serde::de::{Deserialize, Deserializer, Error, Unexpected};

    /// A load, which must be one.
    pub(super) fn load<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
        let load = Option::<u8>::deserialize(from)?;
        match load {
            Some(percent @ 101..) => Err(D::Error::invalid_value(
                Unexpected::Unsigned(percent.into()),
                &"a load of 0 to 100 percent",
            )),
            load => Ok(load),
        }
    }
}

#[cfg(feature = "protobuf")]
pub use protobuf::ProtobufError;

#[cfg(feature = "protobuf")]
mod protobuf {
    use alloc::vec::Vec;
    use core::fmt;

    use prost::Message;

    use super::NodeBeat;

    /// proto/heartbeat.proto.
    #[derive(Clone, Copy, PartialEq, Message)]
    struct Heartbeat {
        #[prost(uint64, tag = "1")]
        timestamp_ms: u64,
        #[prost(uint64, tag = "2")]
        node_id: u64,
        #[prost(uint32, optional, tag = "3")]
        load_percent: Option<u32>,
    }

    impl NodeBeat {
        /// Appends the message `mainstay.heartbeat.v1.Heartbeat`; a load above 100 is written as 100.
        pub fn encode_protobuf(&self, out: &mut Vec<u8>) {
            let message = Heartbeat {
                timestamp_ms: self.timestamp_ms,
                node_id: self.node_id,
                load_percent: self.load_percent.map(|percent| percent.min(100).into()),
            };
            out.reserve(message.encoded_len());
            message.encode_raw(out);
        }

        /// Reads the message, which must fill `bytes`. Fields that it does not have are skipped, as protobuf wants.
        ///
        /// # Errors
        ///
        /// When the bytes are not protobuf, a field has another type, or the load is above 100.
        pub fn decode_protobuf(bytes: &[u8]) -> Result<Self, ProtobufError> {
            let message =
                Heartbeat::decode(bytes).map_err(|error| ProtobufError(Problem::Bytes(error)))?;
            let load_percent = match message.load_percent {
                None => None,
                Some(percent @ 0..=100) => Some(percent as u8),
                Some(percent) => return Err(ProtobufError(Problem::Load(percent))),
            };
            Ok(NodeBeat {
                timestamp_ms: message.timestamp_ms,
                node_id: message.node_id,
                load_percent,
            })
        }
    }

    /// Why bytes are not the message.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ProtobufError(Problem);

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Problem {
        Bytes(prost::DecodeError),
        Load(u32),
    }

    impl ProtobufError {
        /// It is the message, but its load is above 100.
        #[must_use]
        pub fn is_bad_load(&self) -> bool {
            matches!(self.0, Problem::Load(_))
        }
    }

    impl fmt::Display for ProtobufError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match &self.0 {
                Problem::Bytes(error) => write!(f, "not a heartbeat message: {error}"),
                Problem::Load(load) => {
                    write!(f, "the load is {load}; send 0 to 100, or leave it out")
                }
            }
        }
    }

    impl core::error::Error for ProtobufError {
        fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
            match &self.0 {
                Problem::Bytes(error) => Some(error),
                Problem::Load(_) => None,
            }
        }
    }
}
