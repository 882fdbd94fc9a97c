//! The `spec` command: what the platform shows as a form and checks a configuration against.
//!
//! `spec.json` is the specification, in the words that the user sees. What is tested here is that it and
//! [`config`](crate::config), which reads what the user wrote, mean the same.

use serde::Serialize;
use serde_json::Value;

use crate::error::Error;

const SPECIFICATION: &str = include_str!("spec.json");

/// The `SPEC` message: one line of JSON, without the line feed.
///
/// # Errors
///
/// A system error if `spec.json` is not JSON, which a test rules out.
pub fn spec_message() -> Result<String, Error> {
    serde_json::from_str(SPECIFICATION)
        .and_then(|spec: Value| {
            serde_json::to_string(&SpecMessage {
                message_type: "SPEC",
                spec,
            })
        })
        .map_err(|error| {
            Error::system("The connector's own specification is broken.")
                .with_internal(error.to_string())
        })
}

#[derive(Serialize)]
struct SpecMessage {
    #[serde(rename = "type")]
    message_type: &'static str,
    spec: Value,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;
    use crate::config::form::Setting;
    use crate::config::{KinesisConfig, SETTINGS};

    fn specification() -> Value {
        serde_json::from_str(SPECIFICATION).unwrap()
    }

    fn schema() -> Value {
        specification()["connectionSpecification"].clone()
    }

    fn properties() -> Map<String, Value> {
        schema()["properties"].as_object().unwrap().clone()
    }

    #[test]
    fn the_output_is_the_one_that_was_reviewed() {
        let reviewed = include_str!("../tests/snapshots/spec.json");
        assert_eq!(
            spec_message().unwrap() + "\n",
            reviewed,
            "if this is meant, run `destination-kinesis spec > tests/snapshots/spec.json`"
        );
    }

    #[test]
    fn the_message_is_one_line_with_what_the_platform_asks_for() {
        let line = spec_message().unwrap();
        assert!(!line.contains('\n'));
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["type"], "SPEC");
        let spec = &message["spec"];
        assert_eq!(*spec, specification());
        assert_eq!(spec["supportsIncremental"], true);
        assert_eq!(spec["supportsNormalization"], false);
        assert_eq!(spec["supportsDBT"], false);
        assert_eq!(spec["supported_destination_sync_modes"], json!(["append"]));
        let documentation: http::Uri = spec["documentationUrl"].as_str().unwrap().parse().unwrap();
        assert_eq!(documentation.scheme_str(), Some("https"));
    }

    #[test]
    fn the_schema_is_draft_07_of_an_open_object_that_requires_nothing() {
        let schema = schema();
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        jsonschema::draft7::meta::validate(&schema).unwrap();
        assert_eq!(schema["type"], "object");
        assert_eq!(schema["additionalProperties"], true);
        assert_eq!(schema["required"], json!([]));
    }

    /// Row by row and in both directions: type, secrecy, default and range.
    #[test]
    fn the_form_and_the_table_of_settings_are_the_same() {
        let from_table: Map<String, Value> = SETTINGS
            .iter()
            .map(|setting| {
                let meaning = match setting {
                    Setting::Text(text) if text.secret => {
                        json!({"type": "string", "airbyte_secret": true})
                    }
                    Setting::Text(_) => json!({"type": "string"}),
                    Setting::Integer(integer) => {
                        let mut meaning = json!({
                            "type": "integer",
                            "minimum": integer.minimum,
                            "maximum": integer.maximum,
                        });
                        if let Some(default) = integer.default {
                            meaning["default"] = json!(default);
                        }
                        meaning
                    }
                    Setting::Choice(choice) => json!({
                        "type": "string",
                        "enum": choice.options,
                        "default": choice.options[0],
                    }),
                    Setting::Pairs(pairs) => json!({
                        "type": "array",
                        "maxItems": pairs.count_max,
                        "items": {
                            "type": "object",
                            "required": ["key"],
                            "properties": {
                                "key": {"type": "string", "minLength": 1, "maxLength": pairs.key_chars_max},
                                "value": {"type": "string", "maxLength": pairs.value_chars_max},
                            },
                        },
                    }),
                };
                (setting.key().to_owned(), meaning)
            })
            .collect();
        assert_eq!(from_table.len(), SETTINGS.len(), "a key stands there twice");

        // All that is not for the eye only; a keyword that is new has to be thought of here as well.
        let from_form: Map<String, Value> = properties()
            .into_iter()
            .map(|(key, property)| (key, meaning_of(property)))
            .collect();
        assert_eq!(Value::Object(from_form), Value::Object(from_table));
    }

    /// A property without what is for the eye only, and so are those inside it.
    fn meaning_of(property: Value) -> Value {
        match property {
            Value::Object(entries) => entries
                .into_iter()
                .filter(|(keyword, _)| {
                    !["order", "title", "description", "examples", "always_show"]
                        .contains(&keyword.as_str())
                })
                .map(|(keyword, value)| (keyword, meaning_of(value)))
                .collect(),
            other @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)) => other,
        }
    }

    #[test]
    fn the_original_settings_keep_their_names() {
        let properties = properties();
        for key in [
            "endpoint",
            "region",
            "shardCount",
            "accessKey",
            "privateKey",
            "bufferSize",
        ] {
            assert!(properties.contains_key(key), "{key}");
        }
    }

    #[test]
    fn the_platform_can_make_a_form_of_it() {
        let properties = properties();
        let texts = |keyword: &str| -> Vec<String> {
            properties
                .iter()
                .map(|(key, property)| {
                    let text = property[keyword].as_str().unwrap_or_default();
                    assert!(!text.trim().is_empty(), "{key} has no {keyword}");
                    text.to_owned()
                })
                .collect()
        };
        for keyword in ["title", "description"] {
            let texts = texts(keyword);
            let different: BTreeSet<_> = texts.iter().collect();
            assert_eq!(different.len(), texts.len(), "a {keyword} comes twice");
        }

        let order: Vec<_> = properties
            .values()
            .map(|property| property["order"].as_u64())
            .collect();
        let expected: Vec<_> = (0_u64..).map(Some).take(properties.len()).collect();
        assert_eq!(order, expected, "in the file they stand as in the form");

        // A parser drops a field that is there twice, so this looks at the text.
        for key in properties.keys() {
            let definition = format!("\"{key}\": {{");
            assert_eq!(SPECIFICATION.matches(&definition).count(), 1, "{key}");
        }
        assert_one_of_rules(&schema());
    }

    /// A branch of a `oneOf` has to be an object, and all of them share a property whose constant tells them apart.
    fn assert_one_of_rules(schema: &Value) {
        if let Some(branches) = schema.get("oneOf") {
            let branches = branches.as_array().unwrap();
            let constants = |branch: &Value| -> BTreeSet<String> {
                assert_eq!(branch["type"], "object", "{branch}");
                let properties = branch["properties"].as_object().unwrap();
                properties
                    .iter()
                    .filter(|(_, property)| property.get("const").is_some())
                    .map(|(key, _)| key.clone())
                    .collect()
            };
            let shared = branches
                .iter()
                .map(constants)
                .reduce(|shared, next| &shared & &next);
            assert!(shared.is_some_and(|keys| keys.len() == 1), "{schema}");
        }
        match schema {
            Value::Object(entries) => entries.values().for_each(assert_one_of_rules),
            Value::Array(items) => items.iter().for_each(assert_one_of_rules),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Whether the platform, and whether the connector, takes a configuration with one setting.
    fn verdicts(key: &str, value: &Value) -> (bool, bool) {
        let config = json!({ key: value });
        (
            jsonschema::draft7::is_valid(&schema(), &config),
            KinesisConfig::from_json(config.to_string().as_bytes()).is_ok(),
        )
    }

    #[test]
    fn the_edges_of_each_range_and_each_default_are_taken_and_no_more() {
        for (key, property) in properties() {
            if property["type"] != "integer" {
                continue;
            }
            let edge = |keyword: &str| property[keyword].as_i64().unwrap();
            let default = property.get("default").and_then(Value::as_i64);
            let good = [Some(edge("minimum")), Some(edge("maximum")), default];
            for value in good.into_iter().flatten() {
                assert_eq!(verdicts(&key, &json!(value)), (true, true), "{key} {value}");
            }
            for value in [edge("minimum") - 1, edge("maximum") + 1] {
                assert_eq!(
                    verdicts(&key, &json!(value)),
                    (false, false),
                    "{key} {value}"
                );
            }
            // A default that is filled in means the same as none.
            let with_default = json!({ &key: property.get("default") }).to_string();
            assert_eq!(
                KinesisConfig::from_json(with_default.as_bytes()),
                KinesisConfig::from_json(b"{}")
            );
        }
    }

    #[test]
    fn a_wrong_type_is_refused_by_the_platform_and_by_the_connector_under_its_name() {
        for (key, _) in properties() {
            for value in [json!([3]), json!({}), json!(true)] {
                assert_eq!(verdicts(&key, &value), (false, false), "{key} {value}");
                let config = json!({ &key: value }).to_string();
                let error = KinesisConfig::from_json(config.as_bytes()).unwrap_err();
                assert!(error.message().contains(&key), "{error}");
            }
        }
    }

    #[test]
    fn examples_are_valid() {
        for (key, property) in properties() {
            let of_enum = |keyword: &str| property[keyword].as_array().cloned().unwrap_or_default();
            for example in [of_enum("examples"), of_enum("enum")].concat() {
                assert_eq!(verdicts(&key, &example), (true, true), "{key} {example}");
            }
        }
    }

    proptest! {
        /// So a number that the form lets pass never fails later on, nor the other way round.
        #[test]
        fn platform_and_connector_agree_on_every_number(
            key in prop::sample::select(vec!["shardCount", "bufferSize", "retryTimeoutSeconds"]),
            value in prop_oneof![
                any::<i64>().prop_map(Value::from),
                (-10..7000_i64).prop_map(Value::from),
                any::<f64>().prop_map(Value::from),
                (-10..7000_i32).prop_map(|n| Value::from(f64::from(n))),
                (-10..7000_i32).prop_map(|n| Value::from(f64::from(n) / 2.0)),
            ],
        ) {
            let (platform, connector) = verdicts(key, &value);
            prop_assert_eq!(platform, connector, "{}", value);
        }
    }
}
