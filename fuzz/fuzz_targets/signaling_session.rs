//! Whatever clients of a signalling server do, its lobbies stay in order.
#![no_main]

libfuzzer_sys::fuzz_target!(|steps: &[u8]| webrtc_mesh::fuzzing::signaling_session(steps));
