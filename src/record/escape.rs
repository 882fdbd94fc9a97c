//! Escaping a text for a JSON string, fast: this is where the connector spends most of its own time per record.
//!
//! JSON text is full of `"`, one in every seven bytes or so. What costs time is therefore not to find them but to copy
//! the short pieces in between, and above all the branches that no processor can foresee. Two passes: the first counts, which
//! compiles to vector instructions, so that the second can write into memory of the exact size without asking for more.

use std::ops::Range;

/// Bytes that are copied at once: a whole piece between two quotes, nearly always.
const STEP: usize = 16;

/// How many bytes [`Escapes::write`] may overwrite behind the end of what it writes.
pub(super) const SLACK_BYTES: usize = STEP;

/// Bytes whose places are looked up at once: as many as a `u64` has bits.
const BLOCK: usize = 64;

/// What has to be escaped in a text.
pub(super) struct Escapes {
    extra_bytes: usize,
    has_control: bool,
}

impl Escapes {
    /// Counts them.
    pub(super) fn in_text(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut extra_bytes = 0;
        let mut has_control = false;
        // A sum of bytes over at most 255 of them is what the compiler turns into vector instructions.
        for chunk in bytes.chunks(128) {
            let mut plain = 0_u8;
            let mut control = false;
            for &byte in chunk {
                plain += u8::from(needs_backslash(byte));
                control |= byte < 0x20;
            }
            extra_bytes += usize::from(plain);
            has_control |= control;
        }
        if has_control {
            extra_bytes = bytes.iter().map(|&byte| escaped_len(byte) - 1).sum();
        }
        Self {
            extra_bytes,
            has_control,
        }
    }

    /// By how many bytes the text grows.
    pub(super) const fn extra_bytes(&self) -> usize {
        self.extra_bytes
    }

    /// Writes `text`, the one that was counted, escaped to `out[start..]` and returns where it ends.
    ///
    /// Up to [`SLACK_BYTES`] behind that end are overwritten, too, and have to exist.
    pub(super) fn write(&self, text: &str, out: &mut [u8], start: usize) -> usize {
        if self.has_control {
            write_bytewise(text.as_bytes(), out, start)
        } else {
            write_blockwise(text.as_bytes(), out, start)
        }
    }
}

/// `"` and `\`: a backslash goes before them. Nothing else in JSON text does, but for white space between its tokens.
const fn needs_backslash(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\')
}

/// For text without control characters.
fn write_blockwise(text: &[u8], out: &mut [u8], start: usize) -> usize {
    let mut end = start;
    let mut rest = text;
    // A block is read up to `STEP` bytes past its end, so the last bytes go through a padded copy.
    while let Some(block) = rest.first_chunk() {
        end = write_block(block, BLOCK, out, end);
        rest = &rest[BLOCK..];
    }
    for part in rest.chunks(BLOCK) {
        let mut block = [0; BLOCK + STEP];
        block[..part.len()].copy_from_slice(part);
        end = write_block(&block, part.len(), out, end);
    }
    end
}

/// Writes the first `len` bytes of a block, `BLOCK` at most.
#[inline]
fn write_block(block: &[u8; BLOCK + STEP], len: usize, out: &mut [u8], start: usize) -> usize {
    let mut end = start;
    let mut copied = 0;
    let mut places = places_to_escape(block);
    while places != 0 {
        let place = lowest_bit(places);
        places &= places - 1;
        end = copy_in_steps(block, copied..place, out, end);
        out[end] = b'\\';
        end += 1;
        copied = place;
    }
    copy_in_steps(block, copied..len, out, end)
}

/// Copies a piece of a block and returns where it ends: always whole steps, since a copy of a fixed length is one instruction
/// and what is copied too much is overwritten by what comes next.
#[inline]
fn copy_in_steps(
    block: &[u8; BLOCK + STEP],
    piece: Range<usize>,
    out: &mut [u8],
    start: usize,
) -> usize {
    let end = start + piece.len();
    let (mut from, mut to) = (piece.start, start);
    loop {
        out[to..to + STEP].copy_from_slice(&block[from..from + STEP]);
        from += STEP;
        to += STEP;
        if from >= piece.end {
            return end;
        }
    }
}

/// Bit n says that byte n of a block needs a backslash.
#[inline]
fn places_to_escape(block: &[u8; BLOCK + STEP]) -> u64 {
    let mut flags = [0_u8; BLOCK];
    for (flag, &byte) in flags.iter_mut().zip(block) {
        *flag = u8::from(needs_backslash(byte));
    }
    let (words, _) = flags.as_chunks();
    words.iter().rev().fold(0, |places, &word| {
        // Eight bytes of 0 or 1 to eight bits: the product moves the bit of byte n to bit 56 + n, and no two others meet.
        let eight = u64::from_le_bytes(word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        places << 8 | eight
    })
}

/// The number of the lowest bit that is set.
#[inline]
fn lowest_bit(bits: u64) -> usize {
    usize::try_from(bits.trailing_zeros()).unwrap_or(BLOCK)
}

/// For any text, byte by byte: control characters are rare enough for it.
fn write_bytewise(text: &[u8], out: &mut [u8], start: usize) -> usize {
    let mut end = start;
    for &byte in text {
        let (long, short);
        let escaped: &[u8] = match (short_escape(byte), byte) {
            (Some(letter), _) => {
                short = [b'\\', letter];
                &short
            }
            (None, 0x00..0x20) => {
                let digit = |nibble: u8| HEX_DIGITS[usize::from(nibble)];
                long = [b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)];
                &long
            }
            (None, _) => {
                short = [byte, 0];
                &short[..1]
            }
        };
        out[end..end + escaped.len()].copy_from_slice(escaped);
        end += escaped.len();
    }
    end
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// How many bytes stand for this one.
fn escaped_len(byte: u8) -> usize {
    match (short_escape(byte), byte) {
        (Some(_), _) => 2,
        (None, 0x00..0x20) => 6,
        (None, _) => 1,
    }
}

/// The character after the backslash, where JSON has an escape of two characters.
const fn short_escape(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' => Some(byte),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        0x08 => Some(b'b'),
        0x0C => Some(b'f'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The escaped text, and that it is as long as was counted and nothing else was touched.
    fn escape(text: &str) -> String {
        const BEFORE: usize = 3;
        const UNTOUCHED: u8 = 0xEE;
        let escapes = Escapes::in_text(text);
        let len = text.len() + escapes.extra_bytes();
        let mut out = vec![UNTOUCHED; BEFORE + len + SLACK_BYTES];
        assert_eq!(escapes.write(text, &mut out, BEFORE), BEFORE + len);
        assert_eq!(out[..BEFORE], [UNTOUCHED; BEFORE]);
        String::from_utf8(out[BEFORE..BEFORE + len].to_vec()).unwrap()
    }

    /// What another library makes of it, without the quotes around it.
    fn reference(text: &str) -> String {
        let quoted = serde_json::to_string(text).unwrap();
        quoted[1..quoted.len() - 1].to_owned()
    }

    #[test]
    fn every_byte_at_every_place_around_the_blocks() {
        for byte in 0..0x80_u8 {
            for len in [
                0, 1, 15, 16, 17, 63, 64, 65, 79, 80, 81, 127, 128, 129, 143, 144, 145,
            ] {
                let text = format!(
                    "{}{}{}",
                    "x".repeat(len),
                    char::from(byte),
                    "y".repeat(145 - len)
                );
                assert_eq!(escape(&text), reference(&text), "{byte} at {len}");
            }
        }
    }

    #[test]
    fn texts_of_nothing_but_escapes() {
        for len in 0..300 {
            for text in ["\"", "\\", "\n", "\u{1}", "\"\u{1F}"] {
                let text = text.repeat(len);
                assert_eq!(escape(&text), reference(&text));
            }
        }
    }

    #[test]
    fn every_pair_of_characters() {
        for first in 0..0x80_u8 {
            for second in 0..0x80_u8 {
                let text = String::from_utf8(vec![first, second]).unwrap();
                assert_eq!(escape(&text), reference(&text));
            }
        }
    }

    #[test]
    fn what_needs_no_escape_gets_none() {
        let text = "/ \u{7F} \u{80} \u{2028} \u{2029} \u{FFFF} 😀 é".repeat(20);
        assert_eq!(escape(&text), text);
    }

    proptest! {
        #[test]
        fn equals_the_reference(text in prop_oneof![
            any::<String>(),
            "[a-z\"\\\\]{0,400}",
            "[\"\\\\ -~\u{80}-\u{FFF}]{0,400}",
            "[\\x00-\\x40a]{0,400}",
            // Whatever is escaped, with a control character among it: that takes the other path.
            "[\\x00\\x1F\\t\\n\"\\\\/az\\x7F]{0,400}",
        ]) {
            prop_assert_eq!(escape(&text), reference(&text));
        }
    }
}
