//! What a Godot 4 client or server says never panics, and what is understood is said again as it was.
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &str| webrtc_mesh::fuzzing::godot_json(frame));
