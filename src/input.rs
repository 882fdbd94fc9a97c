//! stdin, in a thread of its own: bytes → lines → messages → blocks of admitted items.
//!
//! The thread reads what is there, takes the complete lines out of it, parses them and builds the
//! records' envelopes, and hands all of that over as one block: a line that has not ended waits, and
//! nothing waits for it. When the consumer does not take blocks, the thread stops reading.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::catalog::Catalog;
use crate::checkpoint::{DescriptorIndex, Scope};
use crate::config::KeySource;
use crate::error::Error;
use crate::limits::{
    ARENA_BYTES_MAX, ARENAS_BYTES, INPUT_BLOCKS_MAX, LINE_BYTES_MAX, LINE_GROWTH_BYTES_MAX,
    PIPE_BYTES, READ_BYTES,
};
use crate::protocol::{
    self, AirbyteRecord, AirbyteState, Message, StateLine, StateScope, Unreadable,
};
use crate::record::{Arena, EmittedAt, EncodedRecord};

/// One thing to do, in input order.
#[derive(Debug)]
pub enum Item {
    /// Store this record.
    Record {
        /// Its stream in the catalog.
        descriptor: DescriptorIndex,
        /// Its envelope.
        record: EncodedRecord,
    },
    /// This record is larger than its stream takes.
    Oversized {
        /// Its stream in the catalog.
        descriptor: DescriptorIndex,
        /// Data and partition key, in bytes.
        bytes: usize,
    },
    /// Let this state out when it is earned.
    State {
        /// What it covers.
        scope: Scope,
        /// The line to send back.
        line: StateLine,
    },
}

/// How the input ended.
#[derive(Debug)]
pub enum End {
    /// End of file: everything was read.
    Eof {
        /// Lines that were not messages, and cannot have been ones that matter.
        noise_lines: u64,
    },
    /// Going on could lose a record or a state.
    Failed(Error),
}

/// What one read gave.
#[derive(Debug)]
pub struct Block {
    /// In input order.
    pub items: Vec<Item>,
    /// Whether and how the input ended behind these items.
    pub end: Option<End>,
}

/// Asks for a larger pipe, where stdin is one. A sync works as well, if a little slower, where there is none to be had.
pub fn widen(stdin: impl AsFd) {
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(stdin, PIPE_BYTES);
    #[cfg(not(target_os = "linux"))]
    let _ = (stdin, PIPE_BYTES);
}

/// Starts the thread. The last block has an [`End`]; a channel that closes without one means that the
/// thread has died.
///
/// # Errors
///
/// When the operating system gives no thread.
pub fn start(
    source: impl Read + Send + 'static,
    catalog: Arc<Catalog>,
    keys: KeySource,
    record_bytes_max: Vec<usize>,
) -> io::Result<mpsc::Receiver<Block>> {
    let (sender, receiver) = mpsc::channel(INPUT_BLOCKS_MAX);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let mut reader = Reader::new(source, catalog, keys, record_bytes_max);
            loop {
                let block = reader.next_block();
                let is_last = block.end.is_some();
                // An error here means that the consumer is gone: there is nothing left to do.
                if sender.blocking_send(block).is_err() || is_last {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

/// Reads blocks from any source of bytes.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    catalog: Arc<Catalog>,
    keys: KeySource,
    /// For each Kinesis stream of the catalog.
    record_bytes_max: Vec<usize>,
    /// The same.
    arenas: Vec<Arena>,
    buffer: Vec<u8>,
    /// How much of the buffer holds bytes that were read.
    filled: usize,
    /// How much of that is known to hold no line end.
    searched: usize,
    line_number: u64,
    noise_lines: u64,
    last_descriptor: Option<DescriptorIndex>,
    /// How many items the last block had: the next one has about as many.
    last_items: usize,
}

impl<R: Read> Reader<R> {
    /// A reader of `source`, for records of the streams in `catalog`, with partition keys from `keys`. `record_bytes_max` has for each
    /// Kinesis stream of the catalog how large a record may be.
    pub fn new(
        source: R,
        catalog: Arc<Catalog>,
        keys: KeySource,
        record_bytes_max: Vec<usize>,
    ) -> Self {
        let arena_bytes = ARENAS_BYTES / record_bytes_max.len().max(1);
        let arena_bytes = arena_bytes.min(ARENA_BYTES_MAX);
        Self {
            source,
            catalog,
            keys,
            arenas: record_bytes_max
                .iter()
                .map(|_| Arena::new(arena_bytes))
                .collect(),
            record_bytes_max,
            buffer: vec![0; READ_BYTES],
            filled: 0,
            searched: 0,
            line_number: 0,
            noise_lines: 0,
            last_descriptor: None,
            last_items: 0,
        }
    }

    /// Reads until there is at least one item, or the end.
    pub fn next_block(&mut self) -> Block {
        // A few more than the last time: to grow is to copy them all.
        let mut items = Vec::with_capacity(self.last_items + self.last_items / 8);
        loop {
            let end = match self.fill() {
                Ok(0) => Some(self.finish(&mut items)),
                Ok(_) => self.take_lines(&mut items).err().map(End::Failed),
                Err(error) => Some(End::Failed(
                    Error::system(
                        "Standard input could not be read: the sync stops here. Run it again.",
                    )
                    .with_internal(format!("reading standard input failed: {error}")),
                )),
            };
            if end.is_some() || !items.is_empty() {
                self.last_items = items.len();
                return Block { items, end };
            }
        }
    }

    /// Reads once, and returns how many bytes came.
    fn fill(&mut self) -> io::Result<usize> {
        if self.filled == self.buffer.len() {
            // A long line: make room, twice as much at first, so that it is not copied too often.
            let growth = self.buffer.len().min(LINE_GROWTH_BYTES_MAX);
            let room = (self.buffer.len() + growth).min(LINE_BYTES_MAX + READ_BYTES);
            self.buffer.reserve_exact(room - self.buffer.len());
            self.buffer.resize(room, 0);
        }
        // What a file gives at once must not become one block, however large the buffer has become.
        let end = self.buffer.len().min(self.filled + READ_BYTES);
        loop {
            match self.source.read(&mut self.buffer[self.filled..end]) {
                Ok(read) => {
                    self.filled += read;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes all complete lines out of the buffer, and moves what is left to its front.
    fn take_lines(&mut self, items: &mut Vec<Item>) -> Result<(), Error> {
        let taken_in = EmittedAt::new(SystemTime::now());
        let buffer = std::mem::take(&mut self.buffer);
        let mut start = 0;
        let mut result = Ok(());
        while let Some(length) =
            memchr::memchr(b'\n', &buffer[start.max(self.searched)..self.filled])
        {
            let end = start.max(self.searched) + length;
            result = self.line(&buffer[start..end], &taken_in, items);
            start = end + 1;
            if result.is_err() {
                break;
            }
        }
        self.buffer = buffer;
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        self.searched = self.filled;
        if self.buffer.len() > READ_BYTES && self.filled < READ_BYTES {
            self.buffer.truncate(READ_BYTES);
            self.buffer.shrink_to_fit();
        }
        if result.is_ok() && self.filled > LINE_BYTES_MAX {
            return Err(Error::system(format!(
                "Line {} of the input is longer than {} MiB. No message that this destination takes is that long.",
                self.line_number + 1,
                LINE_BYTES_MAX / 1024 / 1024
            )));
        }
        result
    }

    /// The end of the file: what is left counts as a line.
    fn finish(&mut self, items: &mut Vec<Item>) -> End {
        let last = std::mem::take(&mut self.buffer);
        match self.last_line(&last[..self.filled], items) {
            Ok(()) => End::Eof {
                noise_lines: self.noise_lines,
            },
            Err(error) => End::Failed(error),
        }
    }

    fn last_line(&mut self, line: &[u8], items: &mut Vec<Item>) -> Result<(), Error> {
        let is_cut_object = || {
            line.trim_ascii_start().starts_with(b"{")
                && serde_json::from_slice::<serde::de::IgnoredAny>(line)
                    .is_err_and(|error| error.is_eof())
        };
        if is_cut_object() {
            self.line_number += 1;
            return Err(self.cannot_go_on(line, "the input ends in the middle of it"));
        }
        self.line(line, &EmittedAt::new(SystemTime::now()), items)
    }

    /// Reads one line, and adds what it asks for to `items`.
    fn line(
        &mut self,
        line: &[u8],
        taken_in: &EmittedAt,
        items: &mut Vec<Item>,
    ) -> Result<(), Error> {
        self.line_number += 1;
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        match protocol::parse(line) {
            Ok(Message::Record(record)) => items.push(self.record(&record, taken_in)?),
            Ok(Message::State(state)) => items.push(self.state(line, state)),
            Ok(Message::Other(kind)) => tracing::debug!(
                kind = ?kind.chars().take(40).collect::<String>(),
                line = self.line_number,
                "Ignored a message for somebody else."
            ),
            Err(Unreadable {
                reason,
                may_matter: true,
            }) => return Err(self.cannot_go_on(line, reason)),
            Err(Unreadable {
                reason,
                may_matter: false,
            }) => {
                self.noise_lines += 1;
                tracing::error!(
                    line = self.line_number,
                    bytes = line.len(),
                    reason,
                    "Skipped a line of the input that is not an Airbyte message."
                );
            }
        }
        Ok(())
    }

    fn cannot_go_on(&self, line: &[u8], reason: &str) -> Error {
        Error::system(format!(
            "Line {} of the input ({} bytes) cannot be read: {reason}. It may be a record or a state, so going on could \
             lose data: the sync stops here. Look for what went wrong in the source's log, and run the sync again.",
            self.line_number,
            line.len()
        ))
    }

    fn record(&mut self, record: &AirbyteRecord<'_>, taken_in: &EmittedAt) -> Result<Item, Error> {
        let namespace = record.namespace.as_deref();
        let descriptor = self
            .find(namespace, &record.stream)
            .ok_or_else(|| Catalog::unknown_stream(namespace, &record.stream))?;
        let configured = &self.catalog.streams()[descriptor];
        let stream = configured.stream;
        let key = match self.keys {
            KeySource::Random => None,
            KeySource::PrimaryKey => configured.primary_key.partition_key(record.data),
        }
        .map(Arc::from);
        let encoded = EncodedRecord::encode_within(
            Uuid::new_v4(),
            record.data,
            key,
            taken_in,
            self.record_bytes_max[stream],
            &mut self.arenas[stream],
        );
        Ok(match encoded {
            Ok(record) => Item::Record { descriptor, record },
            Err(bytes) => Item::Oversized { descriptor, bytes },
        })
    }

    /// Looks a descriptor up. Records come in runs of one stream, so the last one is tried first.
    fn find(&mut self, namespace: Option<&str>, name: &str) -> Option<DescriptorIndex> {
        if let Some(last) = self.last_descriptor {
            let descriptor = &self.catalog.streams()[last].descriptor;
            if descriptor.name == name && descriptor.namespace.as_deref() == namespace {
                return Some(last);
            }
        }
        let found = self.catalog.find(namespace, name)?;
        self.last_descriptor = Some(found);
        Some(found)
    }

    fn state(&self, line: &[u8], state: AirbyteState<'_>) -> Item {
        let scope = match state.scope {
            StateScope::Everything => Scope::Everything,
            StateScope::Stream { namespace, name } => self
                .catalog
                .find(namespace.as_deref(), &name)
                .map_or(Scope::UnknownDescriptor, Scope::Descriptor),
        };
        Item::State {
            scope,
            line: StateLine::new(Bytes::copy_from_slice(line), state.slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn catalog() -> Arc<Catalog> {
        Arc::new(
            Catalog::from_json(
                br#"{"streams":[{"stream":{"name":"a"}},{"stream":{"name":"b","namespace":"n"}}]}"#,
            )
            .unwrap(),
        )
    }

    /// Gives its pieces one a read, as a pipe does.
    struct Pieces(std::collections::VecDeque<Vec<u8>>);

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

    fn read_all(pieces: Vec<Vec<u8>>) -> (Vec<Item>, End) {
        let pieces = pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect();
        let mut reader = Reader::new(Pieces(pieces), catalog(), KeySource::Random, vec![1000; 2]);
        let mut items = Vec::new();
        loop {
            let block = reader.next_block();
            items.extend(block.items);
            if let Some(end) = block.end {
                return (items, end);
            }
        }
    }

    fn read_text(text: &str) -> (Vec<Item>, End) {
        read_all(vec![text.as_bytes().to_vec()])
    }

    fn message(end: End) -> String {
        match end {
            End::Failed(error) => {
                assert_eq!(error.failure_type().as_str(), "system_error");
                error.message().to_owned()
            }
            End::Eof { .. } => panic!("the input was read to its end"),
        }
    }

    const RECORD: &str = r#"{"type":"RECORD","record":{"stream":"a","data":{"k":"canary"}}}"#;

    #[test]
    fn line_ends_blank_lines_and_a_last_line_without_an_end() {
        let (items, end) = read_text(&format!("\r\n{RECORD}\r\n \n\n{RECORD}\n\t{RECORD}"));
        assert_eq!(items.len(), 3);
        assert!(matches!(end, End::Eof { noise_lines: 0 }));
    }

    #[test]
    fn noise_is_counted_and_skipped() {
        let (items, end) = read_text(&format!("Picked up JAVA_OPTS\n{RECORD}\n[]\n{{}}\nlast"));
        assert_eq!(items.len(), 1);
        assert!(matches!(end, End::Eof { noise_lines: 4 }));
    }

    #[test]
    fn a_line_that_may_matter_stops_the_input_without_showing_it() {
        for (text, line, bytes) in [
            (
                format!("{RECORD}\n{}\n{RECORD}\n", &RECORD[..RECORD.len() - 1]),
                2,
                RECORD.len() - 1,
            ),
            (format!("{RECORD}\n{}", &RECORD[..10]), 2, 10),
            (format!("\n\n{}", r#"{"log":"canary"#), 3, 14),
        ] {
            let (items, end) = read_text(&text);
            let message = message(end);
            assert!(
                message.contains(&format!("Line {line} of the input ({bytes} bytes)")),
                "{message}"
            );
            assert!(!message.contains("canary"));
            assert!(items.len() <= 1, "nothing behind the line is taken");
        }
    }

    #[test]
    fn a_record_of_an_unknown_stream_stops_the_input_and_names_it() {
        for text in [
            r#"{"type":"RECORD","record":{"stream":"b","data":{}}}"#,
            r#"{"type":"RECORD","record":{"stream":"b","namespace":"","data":{}}}"#,
        ] {
            assert!(message(read_text(text).1).contains("the stream \"b\""));
        }
    }

    #[test]
    fn a_line_beyond_the_bound_is_refused_with_bounded_memory() {
        let mut reader = Reader::new(
            io::repeat(b'x'),
            catalog(),
            KeySource::Random,
            vec![1000; 2],
        );
        let block = reader.next_block();
        let Some(end) = block.end else {
            panic!("there is no line");
        };
        assert!(message(end).contains("longer than 64 MiB"));
        assert!(reader.buffer.capacity() <= LINE_BYTES_MAX + READ_BYTES);
    }

    #[test]
    fn the_buffer_shrinks_after_a_long_line() {
        let long = format!(
            r#"{{"type":"RECORD","record":{{"stream":"a","data":{{"k":"{}"}}}}}}"#,
            "x".repeat(300_000)
        );
        let mut reader = Reader::new(
            io::Cursor::new(format!("{long}\n{RECORD}\n")),
            catalog(),
            KeySource::Random,
            vec![1000; 2],
        );
        let block = reader.next_block();
        assert_eq!(block.items.len(), 2);
        assert!(matches!(
            block.items[0],
            Item::Oversized {
                bytes: 300_000..,
                ..
            }
        ));
        assert_eq!(reader.buffer.len(), READ_BYTES);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn how_the_bytes_arrive_changes_nothing(cuts in prop::collection::vec(0..2000usize, 0..20), ends in any::<bool>()) {
            let state = r#"{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descriptor":{"name":"b","namespace":"n"}}}}"#;
            let mut text = [RECORD, "noise", state, "", RECORD].map(|line| format!("{line}\n")).concat().repeat(4);
            if ends {
                text.pop();
            }
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| text.as_bytes()[pair[0]..pair[1]].to_vec()).collect();
            let (items, end) = read_all(pieces);
            let is_whole = matches!(end, End::Eof { noise_lines: 4 });
            prop_assert!(is_whole);
            let kinds: String = items.iter().map(|item| match item {
                Item::Record { descriptor: 0, .. } => 'r',
                Item::State { scope: Scope::Descriptor(1), .. } => 's',
                Item::Record { .. } | Item::State { .. } | Item::Oversized { .. } => '?',
            }).collect();
            prop_assert_eq!(kinds, "rsr".repeat(4));
        }
    }
}
