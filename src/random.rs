//! The randomness of this crate that is no secret: pauses, ids, ports.
//!
//! In a simulation it follows the simulation's seed, elsewhere it is the system's.

/// From 0 to 1, without 1.
pub(crate) fn fraction() -> f64 {
    #[cfg(feature = "sim")]
    if let Some(seeded) = seeded::next() {
        // The upper 53 bits are as many as an f64 tells apart.
        return (seeded >> 11) as f64 / (1_u64 << 53) as f64;
    }
    rand::random()
}

/// From 0 to `bound`, without `bound`, which is not 0.
pub(crate) fn below(bound: u32) -> u32 {
    #[cfg(feature = "sim")]
    if let Some(seeded) = seeded::next() {
        return (seeded % u64::from(bound)) as u32;
    }
    rand::random_range(0..bound)
}

/// A simulation is one thread, so its generator is the thread's.
#[cfg(feature = "sim")]
pub(crate) mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Lets this thread's randomness follow `seed` until it is dropped.
    #[derive(Debug)]
    pub(crate) struct Seeded(Option<u64>);

    impl Seeded {
        pub(crate) fn new(seed: u64) -> Seeded {
            Seeded(STATE.replace(Some(mix(seed))))
        }
    }

    impl Drop for Seeded {
        fn drop(&mut self) {
            STATE.set(self.0);
        }
    }

    /// Whether this thread is a simulation.
    pub(crate) fn is_simulated() -> bool {
        STATE.get().is_some()
    }

    pub(super) fn next() -> Option<u64> {
        let state = STATE.get()?.wrapping_add(GOLDEN);
        STATE.set(Some(state));
        Some(mix(state))
    }

    /// The step of SplitMix64 (Steele, Lea and Flood, 2014), whose numbers come from a counter alone.
    pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The finalizer of SplitMix64: neighbouring inputs give unrelated outputs.
    pub(crate) fn mix(mut z: u64) -> u64 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
