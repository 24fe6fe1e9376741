//! What is sent: a number, a time, and a pattern that depends on the number, so that a receiver can verify all of it.

use std::sync::LazyLock;
use std::time::Instant;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::stack::Result;

/// What a message says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Its number, from 0.
    pub number: u64,
    /// When it was made, in [`now`]'s nanoseconds.
    pub made: u64,
}

const HEADER: usize = 16;
const PERIOD: usize = 251;

static PATTERN: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..PERIOD + 64 * 1024).map(|at| (at % PERIOD) as u8).collect());
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since this was first asked.
pub fn now() -> u64 {
    BEGAN.elapsed().as_nanos() as u64
}

/// A message of `bytes`, at least 16 and at the most 64 KiB.
pub fn make(bytes: usize, number: u64) -> Bytes {
    let mut message = BytesMut::with_capacity(bytes);
    message.put_u64(number);
    message.put_u64(now());
    message.put_slice(pattern(number, bytes - HEADER));
    message.freeze()
}

/// Verifies a message that should be of `bytes`.
pub fn read(payload: &[u8], bytes: usize) -> Result<Header> {
    if payload.len() != bytes {
        return Err(format!("a message of {} bytes came instead of one of {bytes}", payload.len()).into());
    }
    let word = |at: usize| payload[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let header = Header { number: word(0), made: word(8) };
    if payload[HEADER..] != *pattern(header.number, bytes - HEADER) {
        return Err(format!("message {} is not what was sent", header.number).into());
    }
    Ok(header)
}

fn pattern(number: u64, bytes: usize) -> &'static [u8] {
    let from = (number % PERIOD as u64) as usize;
    &PATTERN[from..from + bytes]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_made_and_no_other_way() {
        let message = make(200, 7);
        assert_eq!(read(&message, 200).unwrap().number, 7);
        let mut changed = message.to_vec();
        changed[199] ^= 1;
        assert!(read(&changed, 200).is_err());
        assert!(read(&message[..199], 200).is_err());
    }
}
