//! What a peer says on the control channel never panics, and what is understood is said again as it was.
#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| webrtc_mesh::fuzzing::control_frame(message));
