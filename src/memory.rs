//! How much may be held, from the memory that there is.

use std::fs;

use crate::limits::{HELD_BYTES_MAX, HELD_BYTES_MIN, HELD_SHARE_OF_MEMORY};

/// Where Linux says how much memory a container may use, in its newer and in its older form.
const LIMIT_FILES: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// The bounds on what is held and on what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBounds {
    /// Bytes of records and states held, after which stdin is not read.
    pub held_bytes_max: usize,
    /// Bytes of records in flight. Fewer than may be held, so that the next batch fills up meanwhile.
    pub in_flight_bytes_max: usize,
}

impl MemoryBounds {
    /// The bounds for this process: smaller than usual where its container has little memory.
    pub fn of_this_process() -> Self {
        let limit = LIMIT_FILES
            .iter()
            .find_map(|file| fs::read_to_string(file).ok())
            .and_then(|text| parse(&text));
        Self::for_limit(limit)
    }

    fn for_limit(limit: Option<usize>) -> Self {
        let held_bytes_max = limit.map_or(HELD_BYTES_MAX, |limit| {
            (limit / HELD_SHARE_OF_MEMORY).clamp(HELD_BYTES_MIN, HELD_BYTES_MAX)
        });
        Self {
            held_bytes_max,
            in_flight_bytes_max: held_bytes_max / 6 * 5,
        }
    }
}

/// A number of bytes, or nothing where there is no limit (`max`, or a number beyond all memory).
fn parse(text: &str) -> Option<usize> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_container_holds_less() {
        const MIB: usize = 1024 * 1024;
        for (text, held) in [
            ("max\n", HELD_BYTES_MAX),
            ("2147483648\n", HELD_BYTES_MAX),
            ("9223372036854771712\n", HELD_BYTES_MAX),
            ("268435456\n", 16 * MIB),
            ("134217728\n", 8 * MIB),
            ("1000\n", HELD_BYTES_MIN),
        ] {
            assert_eq!(
                MemoryBounds::for_limit(parse(text)).held_bytes_max,
                held,
                "{text}"
            );
        }
    }
}
