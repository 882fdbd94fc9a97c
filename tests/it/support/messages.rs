//! What the platform writes to the connector: messages and catalogs, as text.
//!
//! As text, because the connector must hand on numbers that no JSON value in memory can hold.
//! Whatever is displayed as JSON will do for data and states: a `serde_json::Value`, or
//! `r#"{"n":1e400}"#`.

use std::fmt;

use serde_json::{Value, json};

/// A word no output but a state may contain. Records that carry it show when their content leaks.
pub(crate) const CANARY: &str = "canary-c0ffee-7d1f";

/// The message fields of an Airbyte envelope, in the protocol's order.
const ENVELOPE: [&str; 9] = [
    "log",
    "spec",
    "connectionStatus",
    "catalog",
    "record",
    "state",
    "trace",
    "control",
    "destination_catalog",
];

/// A JSON object as ordered fields and their text.
type Fields = Vec<(String, String)>;

/// One message, one line.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    kind: &'static str,
    /// The field of the envelope that holds the body.
    field: &'static str,
    namespace: Namespace,
    body: Body,
    /// Fields of the envelope beyond the protocol.
    extra: Fields,
    /// Fields of the body beyond the protocol, and the `id` of states.
    body_extra: Fields,
    nulls: bool,
}

/// The namespace of a stream, of which absent and null mean the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// No such field.
    Absent,
    /// `null`.
    Null,
    /// This one, which may be empty.
    Named(String),
}

#[derive(Debug, Clone)]
enum Body {
    Record {
        stream: String,
        data: String,
        emitted_at: i64,
    },
    StreamState {
        stream: String,
        state: Option<String>,
    },
    /// The text of the body.
    Other(String),
}

/// A `RECORD`.
pub(crate) fn record(stream: &str, data: impl fmt::Display) -> Message {
    let (stream, data) = (stream.to_owned(), data.to_string());
    let emitted_at = 1_700_000_000_000;
    Message::new(
        "RECORD",
        "record",
        Body::Record {
            stream,
            data,
            emitted_at,
        },
    )
}

/// `count` records of a stream, `{"n":0,...}` and on, each with the [`CANARY`].
pub(crate) fn records(stream: &str, count: usize) -> Vec<Message> {
    (0..count).map(|n| record(stream, numbered(n))).collect()
}

/// The data of the n-th of [`records`].
pub(crate) fn numbered(n: usize) -> String {
    format!(r#"{{"n":{n},"secret":"{CANARY}"}}"#)
}

/// A `STATE` of one stream.
pub(crate) fn state_stream(stream: &str, state: impl fmt::Display) -> Message {
    let (stream, state) = (stream.to_owned(), Some(state.to_string()));
    Message::new("STATE", "state", Body::StreamState { stream, state })
}

/// A `STATE` of one stream that has no `stream_state`.
pub(crate) fn state_stream_reset(stream: &str) -> Message {
    let stream = stream.to_owned();
    Message::new(
        "STATE",
        "state",
        Body::StreamState {
            stream,
            state: None,
        },
    )
}

/// A `STATE` of all streams: what they share, and the state of each by name.
pub(crate) fn state_global<'a>(
    shared: impl fmt::Display,
    streams: impl IntoIterator<Item = (&'a str, Value)>,
) -> Message {
    let streams: Vec<String> = streams
        .into_iter()
        .map(|(name, state)| {
            json!({ "stream_descriptor": { "name": name }, "stream_state": state }).to_string()
        })
        .collect();
    let streams = streams.join(",");
    let body = format!(
        r#"{{"type":"GLOBAL","global":{{"shared_state":{shared},"stream_states":[{streams}]}}}}"#
    );
    Message::new("STATE", "state", Body::Other(body))
}

/// A `STATE` of the old kind, with the type `LEGACY`.
pub(crate) fn state_legacy(data: impl fmt::Display) -> Message {
    let body = format!(r#"{{"type":"LEGACY","data":{data}}}"#);
    Message::new("STATE", "state", Body::Other(body))
}

/// A `STATE` of the oldest kind, without a type.
pub(crate) fn state_untyped(data: impl fmt::Display) -> Message {
    Message::new(
        "STATE",
        "state",
        Body::Other(format!(r#"{{"data":{data}}}"#)),
    )
}

/// A `LOG`, as sources write them.
pub(crate) fn log(level: &str, message: &str) -> Message {
    let body = json!({ "level": level, "message": message }).to_string();
    Message::new("LOG", "log", Body::Other(body))
}

/// A `TRACE` that tells the status of a stream, such as `COMPLETE`.
pub(crate) fn stream_status(stream: &str, status: &str) -> Message {
    let body = json!({
        "type": "STREAM_STATUS",
        "emitted_at": 1.7e12,
        "stream_status": { "stream_descriptor": { "name": stream }, "status": status },
    });
    Message::new("TRACE", "trace", Body::Other(body.to_string()))
}

impl Message {
    fn new(kind: &'static str, field: &'static str, body: Body) -> Self {
        Self {
            kind,
            field,
            namespace: Namespace::Absent,
            body,
            extra: Fields::new(),
            body_extra: Fields::new(),
            nulls: false,
        }
    }

    /// The stream's namespace.
    pub(crate) fn namespace(mut self, name: &str) -> Self {
        self.namespace = Namespace::Named(name.to_owned());
        self
    }

    /// The stream's namespace is there, and null.
    pub(crate) fn null_namespace(mut self) -> Self {
        self.namespace = Namespace::Null;
        self
    }

    /// The `id` the platform gives to each state.
    pub(crate) fn id(self, id: i64) -> Self {
        self.with("id", id)
    }

    /// One more field of the record, state, … itself.
    pub(crate) fn with(mut self, field: &str, json: impl fmt::Display) -> Self {
        self.body_extra.push((field.to_owned(), json.to_string()));
        self
    }

    /// One more field beside `type`.
    pub(crate) fn beside(mut self, field: &str, json: impl fmt::Display) -> Self {
        self.extra.push((field.to_owned(), json.to_string()));
        self
    }

    /// Everything the protocol knows and this message lacks is written as null, as the platform
    /// does.
    pub(crate) fn nulls(mut self) -> Self {
        self.nulls = true;
        self
    }

    /// The line, without its end.
    pub(crate) fn line(&self) -> String {
        self.to_string()
    }

    fn body(&self) -> String {
        let mut fields = match &self.body {
            Body::Other(body) => {
                let extra: String = self
                    .body_extra
                    .iter()
                    .map(|(name, json)| format!(",{}:{json}", quote(name)))
                    .collect();
                let open = body.strip_suffix('}').expect("a JSON object");
                return format!("{open}{extra}}}");
            }
            Body::Record {
                stream,
                data,
                emitted_at,
            } => {
                let mut fields: Fields = self.namespace_field().into_iter().collect();
                fields.push(("stream".to_owned(), quote(stream)));
                fields.push(("data".to_owned(), data.clone()));
                fields.push(("emitted_at".to_owned(), emitted_at.to_string()));
                if self.nulls {
                    fields.push(("meta".to_owned(), "null".to_owned()));
                    fields.push(("file_reference".to_owned(), "null".to_owned()));
                }
                fields
            }
            Body::StreamState { stream, state } => {
                let mut descriptor = vec![("name".to_owned(), quote(stream))];
                descriptor.extend(self.namespace_field());
                let mut of_stream = vec![("stream_descriptor".to_owned(), object(&descriptor))];
                of_stream.extend(
                    state
                        .clone()
                        .map(|state| ("stream_state".to_owned(), state)),
                );
                let mut fields = vec![
                    ("type".to_owned(), quote("STREAM")),
                    ("stream".to_owned(), object(&of_stream)),
                ];
                if self.nulls {
                    let absent = ["global", "data", "sourceStats", "destinationStats"];
                    fields.extend(absent.map(|name| (name.to_owned(), "null".to_owned())));
                }
                fields
            }
        };
        fields.extend(self.body_extra.clone());
        object(&fields)
    }

    /// The field `namespace`, if it is there.
    fn namespace_field(&self) -> Option<(String, String)> {
        let json = match &self.namespace {
            Namespace::Absent if !self.nulls => return None,
            Namespace::Absent | Namespace::Null => "null".to_owned(),
            Namespace::Named(name) => quote(name),
        };
        Some(("namespace".to_owned(), json))
    }
}

impl fmt::Display for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = vec![("type".to_owned(), quote(self.kind))];
        for name in ENVELOPE {
            if name == self.field {
                fields.push((name.to_owned(), self.body()));
            } else if self.nulls {
                fields.push((name.to_owned(), "null".to_owned()));
            }
        }
        fields.extend(self.extra.clone());
        formatter.write_str(&object(&fields))
    }
}

impl From<Message> for String {
    fn from(message: Message) -> Self {
        message.line()
    }
}

/// A stream of a catalog.
#[derive(Debug, Clone)]
pub(crate) struct CatalogStream(Value);

/// A stream that is appended to, in a full refresh.
pub(crate) fn stream(name: &str) -> CatalogStream {
    CatalogStream(json!({
        "stream": {
            "name": name,
            "json_schema": { "type": "object", "properties": {} },
            "supported_sync_modes": ["full_refresh", "incremental"],
        },
        "sync_mode": "full_refresh",
        "destination_sync_mode": "append",
    }))
}

impl CatalogStream {
    /// Its namespace.
    pub(crate) fn namespace(mut self, name: &str) -> Self {
        self.0["stream"]["namespace"] = json!(name);
        self
    }

    /// Its primary key, as paths to the fields.
    pub(crate) fn primary_key(mut self, paths: &Value) -> Self {
        self.0["primary_key"] = paths.clone();
        self
    }

    /// Its namespace is there, and null.
    pub(crate) fn null_namespace(mut self) -> Self {
        self.0["stream"]["namespace"] = Value::Null;
        self
    }

    /// What the destination is asked to do: `append`, `overwrite`, …
    pub(crate) fn sync_mode(mut self, destination: &str) -> Self {
        self.0["destination_sync_mode"] = json!(destination);
        self
    }

    /// Another field beside `stream`, such as `generation_id`.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }
}

/// A configured catalog of these streams.
pub(crate) fn catalog(streams: impl IntoIterator<Item = CatalogStream>) -> String {
    let streams: Vec<Value> = streams.into_iter().map(|stream| stream.0).collect();
    json!({ "streams": streams }).to_string()
}

/// A JSON string.
fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// A JSON object.
fn object(fields: &Fields) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, json)| format!("{}:{json}", quote(name)))
        .collect();
    format!("{{{}}}", fields.join(","))
}
