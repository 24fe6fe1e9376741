//! What signalling brings as a description never panics.
#![no_main]

libfuzzer_sys::fuzz_target!(|sdp: &str| webrtc_mesh::fuzzing::description(sdp));
