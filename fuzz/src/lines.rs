//! The line reader: however the bytes are cut into pieces, the same comes of them, and all that is
//! taken before an error is whole lines of the input.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, LazyLock};

use destination_kinesis::catalog::Catalog;
use destination_kinesis::config::KeySource;
use destination_kinesis::input::{End, Item, Reader};

static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
    let text = br#"{"streams":[{"stream":{"name":"a"},"primary_key":[["id"],["k","n"]]},{"stream":{"name":"b","namespace":"n"}}]}"#;
    Arc::new(Catalog::from_json(text).expect("a catalog"))
});

/// Small, so that records which are too large occur.
const RECORD_BYTES_MAX: usize = 300;

/// The time in a record has so many bytes more or less, for its trailing zeros are left out.
const TIME_BYTES: usize = 10;

/// Bytes on stdin.
pub fn check(input: &[u8]) {
    let whole = read(vec![input.to_vec()]);
    // The first byte says where it is cut.
    let step = usize::from(input.first().copied().unwrap_or(0)) + 1;
    let pieces = read(input.chunks(step).map(<[u8]>::to_vec).collect());
    assert_eq!(whole.1, pieces.1);
    assert_eq!(whole.0.len(), pieces.0.len());
    for (one, other) in whole.0.iter().zip(&pieces.0) {
        let at_the_limit = one.is_at_the_limit() && other.is_at_the_limit();
        assert!(one.text == other.text || at_the_limit, "{one:?}, {other:?}");
    }
    let lines = input.split(|byte| *byte == b'\n').count();
    assert!(whole.0.len() <= lines, "more than one item a line");
}

/// What came of a line.
#[derive(Debug)]
struct Seen {
    /// All of it but what is random.
    text: String,
    /// The size of a record.
    size_bytes: usize,
}

impl Seen {
    /// Whether the time decides if the record is too large.
    fn is_at_the_limit(&self) -> bool {
        self.size_bytes.abs_diff(RECORD_BYTES_MAX) <= TIME_BYTES
    }
}

/// All items, and the end.
fn read(pieces: Vec<Vec<u8>>) -> (Vec<Seen>, String) {
    let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
    let mut reader = Reader::new(
        Pieces(pieces.collect()),
        Arc::clone(&CATALOG),
        KeySource::PrimaryKey,
        vec![RECORD_BYTES_MAX; 2],
    );
    let mut items = Vec::new();
    loop {
        let block = reader.next_block();
        items.extend(block.items.iter().map(describe));
        match block.end {
            Some(End::Eof { noise_lines }) => return (items, format!("{noise_lines} of noise")),
            Some(End::Failed(error)) => return (items, error.message().to_owned()),
            None => {}
        }
    }
}

fn describe(item: &Item) -> Seen {
    let (text, size_bytes) = match item {
        Item::Record { descriptor, record } => {
            assert!(record.size_bytes() <= RECORD_BYTES_MAX);
            let text = without_what_is_random(record.bytes());
            (
                format!("record of {descriptor}, {text}"),
                record.size_bytes(),
            )
        }
        Item::Oversized { descriptor, bytes } => {
            assert!(*bytes > RECORD_BYTES_MAX);
            (format!("too large for {descriptor}"), *bytes)
        }
        Item::State { scope, line } => {
            let mut out = Vec::new();
            line.write(1, 0, &mut out);
            let text = String::from_utf8_lossy(&out);
            (format!("state of {scope:?}: {text}"), 0)
        }
    };
    Seen { text, size_bytes }
}

/// The envelope without its id and its time.
fn without_what_is_random(envelope: &[u8]) -> String {
    let envelope = std::str::from_utf8(envelope).expect("UTF-8");
    let (_, data) = envelope.split_once("_airbyte_data").expect("the data");
    let (data, _) = data.rsplit_once("_airbyte_emitted_at").expect("the time");
    data.to_owned()
}

/// Gives its pieces one a read, as a pipe does.
struct Pieces(VecDeque<Vec<u8>>);

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.0.pop_front() else {
            return Ok(0);
        };
        let fits = piece.len().min(into.len());
        into[..fits].copy_from_slice(&piece[..fits]);
        if fits < piece.len() {
            self.0.push_front(piece.split_off(fits));
        }
        Ok(fits)
    }
}
