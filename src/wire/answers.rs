//! The entries of an answer to PutRecords, read from JSON or from CBOR.

use aws_smithy_cbor::data::Type;
use aws_smithy_cbor::decode::{Decoder, DeserializeError};
use serde::Deserialize;

use crate::protocol::Text;
use crate::put::{Answer, verdict};

/// What an answer says of one record, as it says it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry<'a> {
    /// Where in its shard the record is.
    #[serde(borrow)]
    pub(crate) sequence_number: Option<Text<'a>>,
    /// Where the record is.
    #[serde(borrow)]
    pub(crate) shard_id: Option<Text<'a>>,
    /// Why it is not stored.
    #[serde(borrow)]
    pub(crate) error_code: Option<Text<'a>>,
    /// The same in words.
    #[serde(borrow)]
    pub(crate) error_message: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Entries<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<Entry<'a>>,
}

/// The answers in a body of JSON; `None` where it is not an answer in full.
pub(super) fn in_json(body: &[u8], wants_shards: bool) -> Option<Vec<Answer>> {
    // To check the bytes once is cheaper than to check each text in them.
    let body = std::str::from_utf8(body).ok()?;
    let entries: Entries<'_> = serde_json::from_str(body).ok()?;
    let verdict = |entry| verdict(entry, wants_shards);
    Some(entries.records.iter().map(verdict).collect())
}

/// The answers in a body of CBOR; `None` where it is not an answer in full.
pub(super) fn in_cbor(body: &[u8], wants_shards: bool) -> Option<Vec<Answer>> {
    // An error of the decoder may show what was read.
    usual(body, wants_shards).or_else(|| thorough(body, wants_shards).ok())
}

/// Reads every answer there may be.
fn thorough(body: &[u8], wants_shards: bool) -> Result<Vec<Answer>, DeserializeError> {
    let mut answers = Vec::new();
    let mut decoder = Decoder::new(body);
    let fields = decoder.map()?;
    each(&mut decoder, fields, |decoder| {
        if decoder.str()? != "Records" {
            return decoder.skip();
        }
        let records = decoder.list()?;
        each(decoder, records, |decoder| {
            answers.push(verdict(&entry(decoder)?, wants_shards));
            Ok(())
        })
    })?;
    Ok(answers)
}

fn entry<'a>(decoder: &mut Decoder<'a>) -> Result<Entry<'a>, DeserializeError> {
    let mut entry = Entry::default();
    let fields = decoder.map()?;
    each(decoder, fields, |decoder| {
        let field = match decoder.str()?.as_ref() {
            "SequenceNumber" => &mut entry.sequence_number,
            "ShardId" => &mut entry.shard_id,
            "ErrorCode" => &mut entry.error_code,
            "ErrorMessage" => &mut entry.error_message,
            _ => return decoder.skip(),
        };
        if decoder.datatype()? == Type::Null {
            return decoder.null();
        }
        *field = Some(Text(decoder.str()?));
        Ok(())
    })?;
    Ok(entry)
}

/// Reads each item of a map or list: as many as it says, or up to its end.
fn each<'a>(
    decoder: &mut Decoder<'a>,
    length: Option<u64>,
    mut item: impl FnMut(&mut Decoder<'a>) -> Result<(), DeserializeError>,
) -> Result<(), DeserializeError> {
    match length {
        Some(length) => (0..length).try_for_each(|_| item(decoder)),
        None => {
            while decoder.datatype()? != Type::Break {
                item(decoder)?;
            }
            decoder.skip()
        }
    }
}

/// Reads the answers that servers give, and fast: texts in one piece, plain numbers and nulls, in lists and maps of either kind. `None`
/// where anything else comes, or where the body ends early.
fn usual(body: &[u8], wants_shards: bool) -> Option<Vec<Answer>> {
    let mut answers = Vec::new();
    let mut body = Usual(body);
    let mut fields = body.begin(MAP)?;
    while body.has_more(&mut fields)? {
        if body.text()? != "Records" {
            body.skip()?;
            continue;
        }
        let mut records = body.begin(LIST)?;
        while body.has_more(&mut records)? {
            answers.push(verdict(&body.entry()?, wants_shards));
        }
    }
    Some(answers)
}

// Major types and simple values ([RFC 8949](https://www.rfc-editor.org/rfc/rfc8949#section-3.1)).
const NUMBER: u8 = 0;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const NULL: u8 = 0xF6;
const BREAK: u8 = 0xFF;
/// In place of a length: up to [`BREAK`].
const OPEN: u8 = 31;

/// What is left of a body.
struct Usual<'a>(&'a [u8]);

impl<'a> Usual<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// The value of an item of this major type, which comes next: a number, or the length of what follows.
    fn value(&mut self, major: u8) -> Option<usize> {
        let (&head, rest) = self.0.split_first()?;
        if head >> 5 != major {
            return None;
        }
        self.0 = rest;
        let digits = match head & 31 {
            small @ 0..24 => return Some(small.into()),
            24 => 1,
            25 => 2,
            26 => 4,
            _ => return None,
        };
        let digits = self.take(digits)?.iter();
        Some(digits.fold(0, |value, &digit| (value << 8) | usize::from(digit)))
    }

    /// Begins a list or a map: how many items it has, or `None` in it for up to its end.
    fn begin(&mut self, major: u8) -> Option<Option<usize>> {
        if *self.0.first()? == major << 5 | OPEN {
            self.take(1)?;
            return Some(None);
        }
        self.value(major).map(Some)
    }

    /// Whether another item of it comes. Counts it, or takes the end.
    fn has_more(&mut self, left: &mut Option<usize>) -> Option<bool> {
        if let Some(left) = left {
            let more = *left > 0;
            *left = left.saturating_sub(1);
            return Some(more);
        }
        let ends = *self.0.first()? == BREAK;
        if ends {
            self.take(1)?;
        }
        Some(!ends)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.value(TEXT)?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    /// Takes a null, if that is what comes next.
    fn is_null(&mut self) -> Option<bool> {
        let is_null = *self.0.first()? == NULL;
        if is_null {
            self.take(1)?;
        }
        Some(is_null)
    }

    fn skip(&mut self) -> Option<()> {
        match *self.0.first()? >> 5 {
            NUMBER => self.value(NUMBER).map(drop),
            TEXT => self.text().map(drop),
            _ => self.is_null()?.then_some(()),
        }
    }

    fn entry(&mut self) -> Option<Entry<'a>> {
        let mut entry = Entry::default();
        let mut fields = self.begin(MAP)?;
        while self.has_more(&mut fields)? {
            let field = match self.text()? {
                "SequenceNumber" => &mut entry.sequence_number,
                "ShardId" => &mut entry.shard_id,
                "ErrorCode" => &mut entry.error_code,
                "ErrorMessage" => &mut entry.error_message,
                _ => {
                    self.skip()?;
                    continue;
                }
            };
            if !self.is_null()? {
                *field = Some(Text(self.text()?.into()));
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_cbor::encode::Encoder;
    use proptest::collection::{hash_map, vec};
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use serde_json::{Value, json};

    use super::*;

    fn answer() -> Value {
        json!({
            "EncryptionType": "KMS",
            "FailedRecordCount": 7,
            "Records": [
                {"SequenceNumber": "1", "ShardId": "shardId-000000000003"},
                {"SequenceNumber": "2", "ShardId": "s", "ErrorCode": null, "New": [{"a": {}}, 1.5, null]},
                {"ErrorCode": "InternalFailure", "ErrorMessage": "a \"quoted\" word"},
                {},
            ],
        })
    }

    fn assert_read(answers: &[Answer]) {
        let [first, second, refused, nothing] = answers else {
            panic!("{answers:?}");
        };
        assert!(
            matches!(first, Answer::Stored { shard_id } if shard_id.as_deref() == Some("shardId-000000000003"))
        );
        assert!(matches!(second, Answer::Stored { .. }));
        assert!(matches!(refused, Answer::Refused(fault) if fault.code == "InternalFailure"));
        assert!(matches!(nothing, Answer::Refused(_)));
    }

    #[test]
    fn an_answer_in_json() {
        assert_read(&in_json(answer().to_string().as_bytes(), true).unwrap());
    }

    fn in_ciborium(answer: &Value) -> Vec<u8> {
        let mut body = Vec::new();
        ciborium::into_writer(answer, &mut body).unwrap();
        body
    }

    /// The same with lists and maps that are open at their end, as some servers write them.
    fn in_open_cbor(answer: &Value, body: &mut Encoder) {
        match answer {
            Value::Null => drop(body.null()),
            Value::Bool(yes) => drop(body.boolean(*yes)),
            Value::Number(number) => match number.as_i64() {
                Some(number) => drop(body.long(number)),
                None => drop(body.double(number.as_f64().unwrap())),
            },
            Value::String(text) => drop(body.str(text)),
            Value::Array(items) => {
                body.begin_array();
                items.iter().for_each(|item| in_open_cbor(item, body));
                body.end();
            }
            Value::Object(fields) => {
                body.begin_map();
                for (name, value) in fields {
                    in_open_cbor(value, body.str(name));
                }
                body.end();
            }
        }
    }

    fn both_ways(answer: &Value) -> [Vec<u8>; 2] {
        let mut open = Encoder::new(Vec::new());
        in_open_cbor(answer, &mut open);
        [in_ciborium(answer), open.into_writer()]
    }

    #[test]
    fn an_answer_in_cbor() {
        for body in both_ways(&answer()) {
            assert_read(&in_cbor(&body, true).unwrap());
            assert!(usual(&body, true).is_none(), "it has a list and a fraction");
        }
        let answer =
            json!({"Records": [{"SequenceNumber": "1", "ShardId": "s"}, {"SequenceNumber": "2"}]});
        for body in both_ways(&answer) {
            let answers = in_cbor(&body, false).unwrap();
            assert_eq!(answers.len(), 2);
            let no_shard = |answer| matches!(answer, &Answer::Stored { shard_id: None });
            assert!(answers.iter().all(no_shard), "nobody asked for it");
        }
    }

    #[test]
    fn half_an_answer_is_none() {
        let mut usual_answer = answer();
        usual_answer["Records"][1]["New"] = json!(70_000);
        for answer in [answer(), usual_answer] {
            let json = answer.to_string();
            for end in 0..json.len() {
                assert!(in_json(&json.as_bytes()[..end], true).is_none());
            }
            for cbor in both_ways(&answer) {
                for end in 0..cbor.len() {
                    assert!(in_cbor(&cbor[..end], true).is_none(), "{end}");
                }
            }
        }
        assert!(in_json(b"[]", true).is_none() && in_cbor(b"\x80", true).is_none());
    }

    /// An answer that servers give.
    fn usual_answers() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            4 => "[ -~]{0,60}".prop_map(Value::from),
            1 => any::<String>().prop_map(Value::from),
            1 => Just(Value::Null)
        ];
        const NAMES: [&str; 5] = [
            "SequenceNumber",
            "ShardId",
            "ErrorCode",
            "ErrorMessage",
            "Other",
        ];
        let entry = hash_map(select(&NAMES[..]), text, 0..4).prop_map(|fields| json!(fields));
        (vec(entry, 0..40), any::<u32>())
            .prop_map(|(entries, count)| json!({"FailedRecordCount": count, "Records": entries, "EncryptionType": "KMS"}))
    }

    proptest! {
        #[test]
        fn usual_answers_are_read_as_any_other(answer in usual_answers(), at: Index, instead: u8) {
            for mut body in both_ways(&answer) {
                let read = usual(&body, true).map(|answers| format!("{answers:?}"));
                let slowly = thorough(&body, true).map(|answers| format!("{answers:?}"));
                prop_assert_eq!(read.unwrap(), slowly.unwrap());

                let at = at.index(body.len());
                body[at] = instead;
                if let Some(read) = usual(&body, true) {
                    let slowly = thorough(&body, true).map(|answers| format!("{answers:?}"));
                    prop_assert_eq!(format!("{read:?}"), slowly.unwrap());
                }
            }
        }
    }
}
