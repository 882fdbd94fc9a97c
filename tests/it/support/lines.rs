//! Messages, read as text: what numbers look like has to survive.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A line of the input or the output, as the judge sees it.
pub(super) enum Item {
    Record { scope: Scope, data: String },
    State(State),
    Other,
}

/// What a state is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// One stream: its namespace, for which absent and null are the same, and name.
    Stream(Option<String>, String),
    /// All streams.
    All,
}

/// A state.
pub(super) struct State {
    pub(super) scope: Scope,
    pub(super) echo: Echo,
    /// `destinationStats.recordCount`, as it is written.
    pub(super) record_count: Option<String>,
}

/// What a state that comes out has to share with the one that went in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Echo {
    /// The fields beside `type` and `state` that are not null. Their order means nothing.
    beside: Vec<(String, String)>,
    /// The fields of `state` but `destinationStats`, each as it is written.
    state: Vec<(String, String)>,
}

impl Scope {
    /// The Kinesis stream of an Airbyte stream.
    ///
    /// # Panics
    ///
    /// If its name is not so plain that this is no more than a `_`.
    pub(super) fn kinesis_name(&self) -> String {
        let Self::Stream(namespace, name) = self else {
            panic!("one stream")
        };
        let name = format!("{}_{name}", namespace.as_deref().unwrap_or_default());
        let plain = name.len() <= 128
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        assert!(plain, "{name:?} is not plain enough for this");
        name
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(borrow, default)]
    record: Option<Record<'a>>,
    #[serde(borrow, default)]
    state: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(default)]
    namespace: Option<String>,
    stream: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateBody<'a> {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    stream: Option<StreamState>,
    #[serde(borrow, default)]
    destination_stats: Option<Stats<'a>>,
}

#[derive(Deserialize)]
struct StreamState {
    stream_descriptor: Descriptor,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(default)]
    namespace: Option<String>,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats<'a> {
    #[serde(borrow)]
    record_count: &'a RawValue,
}

impl Item {
    /// Reads a line. What is neither a record nor a state, or neither whole nor JSON, is `Other`.
    pub(super) fn read(line: &str) -> Self {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(line) else {
            return Self::Other;
        };
        match (envelope.kind.as_deref(), envelope.record, envelope.state) {
            (Some("RECORD"), Some(record), _) => Self::Record {
                scope: Scope::Stream(record.namespace, record.stream),
                data: compact(record.data.get()),
            },
            (Some("STATE"), _, Some(state)) => {
                State::read(line, state).map_or(Self::Other, Self::State)
            }
            _ => Self::Other,
        }
    }
}

impl State {
    fn read(line: &str, state: &RawValue) -> Option<Self> {
        let body: StateBody<'_> = serde_json::from_str(state.get()).ok()?;
        let scope = match (body.kind.as_deref(), body.stream) {
            (Some("STREAM"), Some(StreamState { stream_descriptor })) => {
                Scope::Stream(stream_descriptor.namespace, stream_descriptor.name)
            }
            _ => Scope::All,
        };
        let mut beside = Fields::read(line)?;
        beside.retain(|(name, json)| name != "type" && name != "state" && json != "null");
        beside.sort();
        let mut state = Fields::read(state.get())?;
        state.retain(|(name, _)| name != "destinationStats");
        Some(Self {
            scope,
            echo: Echo { beside, state },
            record_count: body
                .destination_stats
                .map(|stats| stats.record_count.get().to_owned()),
        })
    }
}

/// The fields of an object, in their order, each as it is written.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn read(object: &str) -> Option<Vec<(String, String)>> {
        let fields: Self = serde_json::from_str(object).ok()?;
        Some(fields.0)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, json)) = map.next_entry::<String, &RawValue>()? {
                    fields.push((name, json.get().to_owned()));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// JSON text without the white space that means nothing.
pub(super) fn compact(json: &str) -> String {
    let mut in_string = false;
    let mut escaped = false;
    let keep = |char: &char| {
        if in_string {
            in_string = escaped || *char != '"';
            escaped = !escaped && *char == '\\';
            true
        } else {
            in_string = *char == '"';
            !char.is_ascii_whitespace()
        }
    };
    json.chars().filter(keep).collect()
}
