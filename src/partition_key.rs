//! Partition keys made of a record's primary key, in one canonical form.
//!
//! | primary key | values in the record | partition key |
//! |---|---|---|
//! | `id` | `17` | `17` |
//! | `id` | `"abc"` | `abc` |
//! | `name` | `""` | `""` (the two quotes: Kinesis takes no empty key) |
//! | `user.id` | `{"user":{"id":1.50}}` | `1.5` |
//! | `tenant`, `id` | `"a"` and `17` | `["a",17]` |
//! | `tenant`, `id` | `"a"` and nothing | `["a",null]` |
//! | `id` | nothing, or `null` | the record's id, as without a primary key |
//!
//! What is equal has one form: a text is the same however it is escaped, an object whatever order its keys
//! are in, and a number however it is written (1, 1.0 and 1e0), as far as 64-bit floating point tells numbers that have a
//! decimal point or an exponent apart. Where two values share a form (`17` and `"17"`), they share the order too, which takes
//! nothing away from either.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::protocol::Text;
use crate::sha256;

/// Characters that a partition key has at most
/// ([PutRecords](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html)).
const CHARS_MAX: usize = 256;

/// Paths to the fields of a stream's primary key; none where it has no key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct PrimaryKey {
    paths: Vec<Vec<String>>,
}

impl PrimaryKey {
    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.iter().all(Vec::is_empty)
    }

    /// The partition key of the record with this data. `None` where the record has no value in any of the key's
    /// fields.
    #[must_use]
    pub fn partition_key(&self, data: &str) -> Option<String> {
        let values: Vec<_> = self
            .paths
            .iter()
            .filter(|path| !path.is_empty())
            .map(|path| find(data, path).map_or(Value::Null, canonical))
            .collect();
        if values.iter().all(Value::is_null) {
            return None;
        }
        let key = match &values[..] {
            [Value::String(text)] if !text.is_empty() => text.clone(),
            [value] => value.to_string(),
            _ => Value::Array(values).to_string(),
        };
        Some(if key.chars().nth(CHARS_MAX).is_some() {
            sha256::hex(&key)
        } else {
            key
        })
    }
}

/// The value at the end of a path through objects.
fn find<'a>(data: &'a str, path: &[String]) -> Option<&'a str> {
    path.iter().try_fold(data, |object, name| {
        let mut object = serde_json::Deserializer::from_str(object);
        Field(name).deserialize(&mut object).ok().flatten()
    })
}

/// Finds one field of an object, and no value is made of the others. Of several with one name, the last one counts, as it does
/// for most readers of JSON.
struct Field<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(name)) = fields.next_key()? {
            if name == self.0 {
                found = Some(fields.next_value::<&RawValue>()?.get());
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// The value in the one form that all its spellings have.
fn canonical(text: &str) -> Value {
    serde_json::from_str(text).map_or_else(
        // Only a number beyond floating point is JSON and still no value: it stays as it is written.
        |_| Value::String(text.to_owned()),
        |mut value: Value| {
            value.sort_all_objects();
            canonical_numbers(&mut value);
            value
        },
    )
}

/// Makes integers of floating point without a fraction.
fn canonical_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0) else {
                return;
            };
            let digits = format!("{float:.0}");
            if let Ok(integer) = digits.parse::<i64>() {
                *number = integer.into();
            } else if let Ok(integer) = digits.parse::<u64>() {
                *number = integer.into();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(canonical_numbers),
        Value::Object(fields) => fields.values_mut().for_each(canonical_numbers),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(paths: &str, data: &str) -> Option<String> {
        let key: PrimaryKey = serde_json::from_str(paths).unwrap();
        key.partition_key(data)
    }

    #[test]
    fn one_field_is_its_text() {
        for (value, expected) in [
            ("17", "17"),
            (r#""abc""#, "abc"),
            (r#""a\"b""#, "a\"b"),
            (r#""""#, r#""""#),
            ("true", "true"),
            ("[1, 2]", "[1,2]"),
            (
                r#"{"b":1,"a":{"d":2.0,"c":3}}"#,
                r#"{"a":{"c":3,"d":2},"b":1}"#,
            ),
            ("1e999", "1e999"),
        ] {
            let data = format!(r#"{{"x":[{{"id":0}}],"id": {value} ,"y":null}}"#);
            assert_eq!(key(r#"[["id"]]"#, &data).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_equal_has_one_key() {
        for group in [
            &["1", "1.0", "1e0", "10e-1", "1.000"][..],
            &["0", "-0", "0.0", "-0.0"],
            &["1.5", "1.50", "15e-1"],
            &["-3", "-3.0"],
            &["10000000000000000", "1e16"],
            &["18446744073709551615"],
            &[r#""é\n""#, r#""\u00e9\u000a""#],
        ] {
            let keys: Vec<_> = group
                .iter()
                .map(|value| key(r#"[["id"]]"#, &format!(r#"{{"id":{value}}}"#)).unwrap())
                .collect();
            assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        }
        assert_eq!(
            key(r#"[["id"]]"#, r#"{"id":18446744073709551615}"#).unwrap(),
            "18446744073709551615"
        );
    }

    #[test]
    fn several_fields_are_a_list_that_cannot_be_mistaken() {
        let paths = r#"[["tenant"],["user","id"]]"#;
        let of = |data| key(paths, data);
        assert_eq!(
            of(r#"{"user":{"id":7},"tenant":"a"}"#).unwrap(),
            r#"["a",7]"#
        );
        assert_eq!(of(r#"{"tenant":"a"}"#).unwrap(), r#"["a",null]"#);
        assert_eq!(of(r#"{"user":{"id":7}}"#).unwrap(), "[null,7]");
        assert_eq!(of(r#"{"user":7,"tenant":"a"}"#).unwrap(), r#"["a",null]"#);
        assert_ne!(
            key(r#"[["a"],["b"]]"#, r#"{"a":"x\",\"y","b":"z"}"#),
            key(r#"[["a"],["b"]]"#, r#"{"a":"x","b":"y\",\"z"}"#)
        );
    }

    #[test]
    fn without_a_value_there_is_no_key() {
        assert_eq!(key("[]", r#"{"id":1}"#), None);
        assert_eq!(key("[[]]", r#"{"id":1}"#), None);
        assert_eq!(key(r#"[["id"]]"#, "{}"), None);
        assert_eq!(key(r#"[["id"]]"#, r#"{"id":null}"#), None);
        assert_eq!(key(r#"[["id"],["b"]]"#, r#"{"b":null}"#), None);
        assert_eq!(key(r#"[["id"]]"#, r#"{"ID":1}"#), None);
    }

    #[test]
    fn the_last_of_two_fields_of_one_name_counts() {
        assert_eq!(key(r#"[["id"]]"#, r#"{"id":1,"id":2}"#).unwrap(), "2");
    }

    #[test]
    fn a_key_that_kinesis_would_not_take_is_hashed() {
        let at_limit = "é".repeat(256);
        let of = |text: &str| key(r#"[["id"]]"#, &format!(r#"{{"id":"{text}"}}"#)).unwrap();
        assert_eq!(of(&at_limit), at_limit);
        // printf 'é%.0s' {1..257} | sha256sum
        let hash = "db33c4ce9e8a72562c8f24aa67b7abbabdb848426e8ddfff4ee08f6ae04d1b17";
        assert_eq!(of(&"é".repeat(257)), hash);
    }
}
