//! The stacks, a file each.

pub mod libdatachannel;
pub mod matchbox;
pub mod str0m;
pub mod webrtc;
pub mod webrtc_mesh;

/// Every two of so many nodes, the lower first.
fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |a| (a + 1..nodes).map(move |b| (a, b)))
}
