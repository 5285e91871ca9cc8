//! Arbitrary bytes as either side's stream: no panic, and what was understood can be said again.
#![no_main]

use gateway::proto::{
    FromDevice, FrontDoor, Native, NativePhase, PREFACE, Step, decode_to_device, encode_from_device,
};
use heartbeat_codec::delta::DeltaDecoder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (start, bytes) = input;
    match start % 5 {
        0 => read_as_gateway(NativePhase::Preface, bytes),
        1 => read_as_gateway(NativePhase::Hello, bytes),
        2 => read_as_gateway(NativePhase::Open, bytes),
        3 => read_as_gateway(NativePhase::Delta(DeltaDecoder::new()), bytes),
        _ => read_as_device(bytes),
    }
});

fn read_as_gateway(mut phase: NativePhase, mut rest: &[u8]) {
    loop {
        match Native::decode(&mut phase, rest) {
            Ok(Step::NeedMore) | Err(_) => return,
            Ok(Step::Skip { consumed }) => {
                assert_eq!(rest[..consumed], PREFACE);
                rest = &rest[consumed..];
            }
            Ok(Step::Message { consumed, message }) => {
                let mut again = Vec::new();
                encode_from_device(&message, &mut again);
                let mut phase = match message {
                    FromDevice::Hello(_) => NativePhase::Hello,
                    FromDevice::Resync { .. } => NativePhase::Delta(DeltaDecoder::new()),
                    _ => NativePhase::Open,
                };
                match Native::decode(&mut phase, &again) {
                    Ok(Step::Message { message: there, .. }) => assert_eq!(there, message),
                    other => panic!("{other:?} from {again:?}"),
                }
                rest = &rest[consumed..];
            }
        }
    }
}

fn read_as_device(mut rest: &[u8]) {
    while let Ok(Some((consumed, message))) = decode_to_device(rest) {
        let mut again = Vec::new();
        Native::encode(&mut NativePhase::Open, &message, &mut again);
        assert_eq!(decode_to_device(&again), Ok(Some((again.len(), message))));
        rest = &rest[consumed..];
    }
}
