//! Airbyte messages, in: just the fields we use, everything else untouched.
//!
//! A record's `data` stays the text that the source wrote. A state stays the whole line, byte for
//! byte, with a note of the place where `destinationStats` goes.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// One line of input, understood.
#[derive(Debug)]
pub enum Message<'a> {
    /// A record to deliver.
    Record(AirbyteRecord<'a>),
    /// A state to hold until it is earned.
    State(AirbyteState<'a>),
    /// A message for somebody else (`LOG`, `TRACE`, `CONTROL` and types of the future): its type.
    Other(Cow<'a, str>),
}

/// The fields of a record that we use.
pub struct AirbyteRecord<'a> {
    /// Absent and null are the same.
    pub namespace: Option<Cow<'a, str>>,
    /// The stream's name.
    pub stream: Cow<'a, str>,
    /// The text of the JSON object in `data`, exactly as it came.
    pub data: &'a str,
}

impl fmt::Debug for AirbyteRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AirbyteRecord")
            .field("namespace", &self.namespace)
            .field("stream", &self.stream)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}

/// What a state covers, as the source says it.
#[derive(Debug, PartialEq, Eq)]
pub enum StateScope<'a> {
    /// `STREAM`: one descriptor.
    Stream {
        /// Absent and null are the same.
        namespace: Option<Cow<'a, str>>,
        /// The stream's name.
        name: Cow<'a, str>,
    },
    /// `GLOBAL`, `LEGACY`, or no type: everything.
    Everything,
}

/// A state, and where in its line the statistics go.
#[derive(Debug)]
pub struct AirbyteState<'a> {
    /// What it covers.
    pub scope: StateScope<'a>,
    /// Where `destinationStats` goes.
    pub slot: StatsSlot,
}

/// The place in a state's line where `destinationStats` goes: in place of the one that is there, or as
/// the last property of `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsSlot {
    replace: Range<usize>,
    before: &'static str,
}

/// A state's line, to be sent back with statistics.
pub struct StateLine {
    line: Bytes,
    slot: StatsSlot,
}

impl StateLine {
    /// The line, without its line end, and the slot that [`parse`] found in it.
    pub fn new(line: Bytes, slot: StatsSlot) -> Self {
        Self { line, slot }
    }

    /// The length of the line as it came, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.line.len()
    }

    /// Appends the line to `out`, with `records` as its count, and a line end. `rejected` records were
    /// left out; where there are none, they are not mentioned.
    pub fn write(&self, records: u64, rejected: u64, out: &mut Vec<u8>) {
        let Range { start, end } = self.slot.replace;
        out.extend_from_slice(&self.line[..start]);
        out.extend_from_slice(self.slot.before.as_bytes());
        // The protocol wants numbers with a decimal point.
        out.extend_from_slice(format!("{{\"recordCount\":{records}.0").as_bytes());
        if rejected > 0 {
            out.extend_from_slice(format!(",\"rejectedRecordCount\":{rejected}.0").as_bytes());
        }
        out.push(b'}');
        out.extend_from_slice(&self.line[end..]);
        out.push(b'\n');
    }
}

impl fmt::Debug for StateLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateLine({} bytes)", self.line.len())
    }
}

/// Why a line is not a message. Says nothing of its content.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The reason, in words for the log.
    pub reason: &'static str,
    /// Whether it may have been a record or a state: then going on could lose it.
    pub may_matter: bool,
}

/// A text that is borrowed where it can be, also inside an `Option`.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    record: Option<RecordFields<'a>>,
    #[serde(borrow)]
    state: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RecordFields<'a> {
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    stream: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StateFields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    stream: Option<StreamStateFields<'a>>,
    #[serde(borrow)]
    global: Option<&'a RawValue>,
    // Not `Option`: null must be told from absent, to be replaced in its place.
    #[serde(borrow, default, rename = "destinationStats")]
    destination_stats: Present<'a>,
}

#[derive(Deserialize)]
struct StreamStateFields<'a> {
    #[serde(borrow)]
    stream_descriptor: Option<DescriptorFields<'a>>,
}

#[derive(Deserialize)]
struct DescriptorFields<'a> {
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

/// A property that is there, null or not.
#[derive(Default)]
struct Present<'a>(Option<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Present<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a RawValue>::deserialize(deserializer).map(|raw| Self(Some(raw)))
    }
}

/// Reads one line: a JSON object, without its line end, with no white space around it.
///
/// # Errors
///
/// [`Unreadable`] says why it is not a message, and whether it may have been one that matters.
pub fn parse(line: &[u8]) -> Result<Message<'_>, Unreadable> {
    // To check the line once is cheaper than to check each text in it.
    let envelope: Result<Envelope<'_>, _> = match std::str::from_utf8(line) {
        Ok(line) => serde_json::from_str(line),
        Err(_) => serde_json::from_slice(line),
    };
    let envelope = envelope.map_err(|error| Unreadable {
        reason: if error.is_eof() {
            "the JSON ends too early"
        } else if std::str::from_utf8(line).is_err() {
            "not UTF-8"
        } else if error.is_data() {
            "not shaped like an Airbyte message"
        } else {
            "not JSON"
        },
        may_matter: names_record_or_state(line),
    })?;
    // A list of the right length would do for the parser.
    if !line.starts_with(b"{") {
        return Err(Unreadable {
            reason: "not a JSON object",
            may_matter: names_record_or_state(line),
        });
    }
    match envelope.kind {
        Some(Text(kind)) if kind == "RECORD" => record(envelope.record).map(Message::Record),
        Some(Text(kind)) if kind == "STATE" => state(line, envelope.state).map(Message::State),
        Some(Text(kind)) => Ok(Message::Other(kind)),
        None => Err(Unreadable {
            reason: "an Airbyte message without a type",
            may_matter: envelope.record.is_some() || envelope.state.is_some(),
        }),
    }
}

fn malformed(reason: &'static str) -> Unreadable {
    Unreadable {
        reason,
        may_matter: true,
    }
}

/// Whether the bytes name one of the two types that must not be lost.
fn names_record_or_state(line: &[u8]) -> bool {
    memchr::memmem::find(line, b"\"RECORD\"").is_some()
        || memchr::memmem::find(line, b"\"STATE\"").is_some()
}

fn record(fields: Option<RecordFields<'_>>) -> Result<AirbyteRecord<'_>, Unreadable> {
    let fields = fields.ok_or_else(|| malformed("a RECORD without `record`"))?;
    let Some(Text(stream)) = fields.stream else {
        return Err(malformed("a RECORD without `stream`"));
    };
    let data = fields.data.map_or("", RawValue::get);
    if !data.starts_with('{') {
        return Err(malformed("a RECORD with `data` that is not an object"));
    }
    Ok(AirbyteRecord {
        namespace: fields.namespace.map(|Text(namespace)| namespace),
        stream,
        data,
    })
}

fn state<'a>(line: &'a [u8], raw: Option<&'a RawValue>) -> Result<AirbyteState<'a>, Unreadable> {
    let raw = raw.ok_or_else(|| malformed("a STATE without `state`"))?;
    // All of the line goes out again, also what the parser has passed over unread.
    if std::str::from_utf8(line).is_err() {
        return Err(malformed("not UTF-8"));
    }
    let fields: StateFields<'a> = serde_json::from_str(raw.get())
        .ok()
        .filter(|_| raw.get().starts_with('{'))
        .ok_or_else(|| malformed("a STATE with `state` that is not shaped like one"))?;
    let slot = match fields.destination_stats.0 {
        Some(stats) => StatsSlot {
            replace: position(line, stats.get()),
            before: "",
        },
        None => {
            let closing_brace = position(line, raw.get()).end - 1;
            let is_empty = raw.get()[1..raw.get().len() - 1].trim().is_empty();
            StatsSlot {
                replace: closing_brace..closing_brace,
                before: if is_empty {
                    "\"destinationStats\":"
                } else {
                    ",\"destinationStats\":"
                },
            }
        }
    };
    Ok(AirbyteState {
        scope: scope(
            fields.kind.as_ref().map(|Text(kind)| kind.as_ref()),
            fields.stream,
            fields.global,
        )?,
        slot,
    })
}

fn scope<'a>(
    kind: Option<&str>,
    stream: Option<StreamStateFields<'a>>,
    global: Option<&RawValue>,
) -> Result<StateScope<'a>, Unreadable> {
    match kind {
        Some("STREAM") => {
            let descriptor = stream
                .and_then(|stream| stream.stream_descriptor)
                .ok_or_else(|| malformed("a STREAM state without `stream_descriptor`"))?;
            let Text(name) = descriptor
                .name
                .ok_or_else(|| malformed("a STREAM state without the stream's name"))?;
            Ok(StateScope::Stream {
                namespace: descriptor.namespace.map(|Text(namespace)| namespace),
                name,
            })
        }
        Some("GLOBAL") if global.is_some() => Ok(StateScope::Everything),
        Some("GLOBAL") => Err(malformed("a GLOBAL state without `global`")),
        Some("LEGACY") | None => Ok(StateScope::Everything),
        Some(_) => Err(malformed(
            "a STATE of a type that the protocol does not have",
        )),
    }
}

/// Where in `line` the slice `part` of it lies.
fn position(line: &[u8], part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - line.as_ptr().addr();
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_stats(line: &str, records: u64) -> String {
        with_counts(line, records, 0)
    }

    fn with_counts(line: &str, records: u64, rejected: u64) -> String {
        let Ok(Message::State(state)) = parse(line.as_bytes()) else {
            panic!("not a state: {line}");
        };
        let mut out = Vec::new();
        StateLine::new(Bytes::copy_from_slice(line.as_bytes()), state.slot)
            .write(records, rejected, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_keeps_its_data_to_the_byte() {
        let line = br#"{"type":"RECORD","record":{"stream":"a\u0062","data":{"n":1e400, "s":"\ud83d"},"emitted_at":1,"new":[]},"log":null,"extra":{}}"#;
        let Ok(Message::Record(record)) = parse(line) else {
            panic!("not a record");
        };
        assert_eq!(record.stream, "ab");
        assert_eq!(record.namespace, None);
        assert_eq!(record.data, r#"{"n":1e400, "s":"\ud83d"}"#);
        assert!(!format!("{record:?}").contains("1e400"));
    }

    #[test]
    fn null_and_empty_namespaces_are_told_apart() {
        for (text, expected) in [
            ("", None),
            (r#""namespace":null,"#, None),
            (r#""namespace":"","#, Some("")),
        ] {
            let line =
                format!(r#"{{"type":"RECORD","record":{{{text}"stream":"a","data":{{}}}}}}"#);
            let Ok(Message::Record(record)) = parse(line.as_bytes()) else {
                panic!("not a record");
            };
            assert_eq!(record.namespace.as_deref(), expected);
        }
    }

    #[test]
    fn statistics_are_the_only_change_to_a_state() {
        let cases = [
            (
                r#"{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descriptor":{"name":"a","namespace":null},"stream_state":{"n":1.10}},"id":7},"x":1}"#,
                r#"{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descriptor":{"name":"a","namespace":null},"stream_state":{"n":1.10}},"id":7,"destinationStats":{"recordCount":3.0}},"x":1}"#,
            ),
            (
                r#"{"state":{"destinationStats":null,"data":{}},"type":"STATE"}"#,
                r#"{"state":{"destinationStats":{"recordCount":3.0},"data":{}},"type":"STATE"}"#,
            ),
            (
                r#"{"type":"STATE","state":{ }}"#,
                r#"{"type":"STATE","state":{ "destinationStats":{"recordCount":3.0}}}"#,
            ),
            (
                r#"{"type":"STATE","state":{"type":"GLOBAL","global":{"stream_states":[]},"destinationStats":{"recordCount":9.0}}}"#,
                r#"{"type":"STATE","state":{"type":"GLOBAL","global":{"stream_states":[]},"destinationStats":{"recordCount":3.0}}}"#,
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(with_stats(input, 3), format!("{expected}\n"));
        }
    }

    #[test]
    fn records_that_were_left_out_are_counted_where_there_are_any() {
        assert_eq!(
            with_counts(r#"{"type":"STATE","state":{}}"#, 3, 2),
            "{\"type\":\"STATE\",\"state\":{\"destinationStats\":{\"recordCount\":3.0,\"rejectedRecordCount\":2.0}}}\n"
        );
    }

    #[test]
    fn states_that_cannot_be_understood_are_refused() {
        for (line, reason) in [
            (r#"{"type":"STATE"}"#, "a STATE without `state`"),
            (
                r#"{"type":"STATE","state":3}"#,
                "a STATE with `state` that is not shaped like one",
            ),
            (
                r#"{"type":"STATE","state":{"type":"STREAM"}}"#,
                "a STREAM state without `stream_descriptor`",
            ),
            (
                r#"{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descriptor":{}}}}"#,
                "a STREAM state without the stream's name",
            ),
            (
                r#"{"type":"STATE","state":{"type":"GLOBAL","global":null}}"#,
                "a GLOBAL state without `global`",
            ),
            (
                r#"{"type":"STATE","state":{"type":"NEW"}}"#,
                "a STATE of a type that the protocol does not have",
            ),
        ] {
            assert_eq!(
                parse(line.as_bytes()).unwrap_err(),
                malformed(reason),
                "{line}"
            );
        }
    }

    #[test]
    fn only_lines_that_may_be_records_or_states_matter() {
        for (line, may_matter) in [
            (
                &br#"{"type":"RECORD","record":{"stream":"a","data":"#[..],
                true,
            ),
            (br#"{"type":"RECORD","record":null}"#, true),
            (br#"{"type":"RECORD","record":{"data":{}}}"#, true),
            (
                br#"{"type":"RECORD","record":{"stream":"a","data":[1]}}"#,
                true,
            ),
            (
                br#"{"type":"RECORD","record":{"stream":"a","data":{}}} x"#,
                true,
            ),
            (b"{\"type\":\"STATE\",\"state\":{\"\xff\":1}}", true),
            (
                b"{\"type\":\"STATE\",\"state\":{},\"other\":\"\xff\"}",
                true,
            ),
            (br#"{"type":"STATE","state":[null,null,null]}"#, true),
            (br#"["STATE",null,{}]"#, true),
            (br#"["RECORD",{"stream":"a","data":{}},null]"#, true),
            (br#"["LOG",null,null]"#, false),
            (br#"{"type":"RECORD","type":"LOG"}"#, true),
            (br#"{"record":{"stream":"a","data":{}}}"#, true),
            (b"{}", false),
            (b"[1]", false),
            (b"Exception in thread main", false),
            (b"\xff\xfe", false),
            (br#"{"type":"LOG","log":{"message":"#, false),
        ] {
            assert_eq!(
                parse(line).unwrap_err().may_matter,
                may_matter,
                "{}",
                String::from_utf8_lossy(line)
            );
        }
    }

    #[test]
    fn messages_for_others_are_let_pass() {
        for line in [
            r#"{"type":"LOG","log":{"level":"INFO","message":"x"}}"#,
            r#"{"type":"NEW_IN_2030","record":null,"state":null}"#,
        ] {
            assert!(matches!(parse(line.as_bytes()), Ok(Message::Other(_))));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }

        #[test]
        fn a_state_without_its_statistics_is_the_state_that_came(
            id in any::<i64>(), count in any::<u64>(), text in ".*", pad in "[ \t]{0,3}"
        ) {
            let text = serde_json::to_string(&text).unwrap();
            let line = format!(r#"{{"type":"STATE",{pad}"state":{{"data":{{"k":{text}}},"id":{id}{pad}}}{pad}}}"#);
            let out = with_stats(&line, count);
            let stats = format!(r#","destinationStats":{{"recordCount":{count}.0}}"#);
            prop_assert_eq!(out.replacen(&stats, "", 1), format!("{line}\n"));
        }
    }
}
