//! The configured catalog: which descriptors (Airbyte streams) exist, and which Kinesis stream each
//! goes to.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;

use crate::checkpoint::DescriptorIndex;
use crate::error::Error;
use crate::name_transformer::stream_name;
use crate::partition_key::PrimaryKey;

/// The index of a Kinesis stream in [`Catalog::stream_names`].
pub type StreamIndex = usize;

/// What names an Airbyte stream. No namespace and an empty one are two different things.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamDescriptor {
    /// The namespace; absent and null are the same.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl fmt::Display for StreamDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, self.namespace.as_deref(), &self.name)
    }
}

fn describe(f: &mut impl fmt::Write, namespace: Option<&str>, name: &str) -> fmt::Result {
    match namespace {
        Some(namespace) => write!(f, "{name:?} (namespace {namespace:?})"),
        None => write!(f, "{name:?} (no namespace)"),
    }
}

/// One stream of the catalog.
#[derive(Debug)]
pub struct ConfiguredStream {
    /// The Airbyte stream.
    pub descriptor: StreamDescriptor,
    /// The Kinesis stream that it goes to.
    pub stream: StreamIndex,
    /// What the user asked for, as the platform spells it (`append`, `overwrite`, `append_dedup`, …).
    pub destination_sync_mode: String,
    /// The primary key that was chosen in the connection, else the one that the source has defined.
    pub primary_key: PrimaryKey,
}

/// The configured catalog, ready for look-ups.
#[derive(Debug)]
pub struct Catalog {
    streams: Vec<ConfiguredStream>,
    stream_names: Vec<String>,
    by_name: HashMap<String, Vec<DescriptorIndex>>,
}

#[derive(Deserialize)]
struct RawCatalog {
    streams: Vec<RawConfiguredStream>,
}

#[derive(Deserialize)]
struct RawConfiguredStream {
    stream: RawStream,
    destination_sync_mode: Option<String>,
    primary_key: Option<PrimaryKey>,
}

#[derive(Deserialize)]
struct RawStream {
    name: String,
    namespace: Option<String>,
    source_defined_primary_key: Option<PrimaryKey>,
}

impl Catalog {
    /// Reads a configured catalog.
    ///
    /// # Errors
    ///
    /// A config error that says where the text stops being a catalog.
    pub fn from_json(text: &[u8]) -> Result<Self, Error> {
        let raw: RawCatalog = serde_json::from_slice(text).map_err(|error| {
            Error::config(format!(
                "The catalog is not a configured Airbyte catalog: {error}. It must be a JSON object with a list \
                 `streams`, each with `stream.name`, as the platform writes it."
            ))
        })?;
        let mut catalog = Self {
            streams: Vec::new(),
            stream_names: Vec::new(),
            by_name: HashMap::new(),
        };
        let mut by_stream_name: HashMap<String, StreamIndex> = HashMap::new();
        for RawConfiguredStream {
            stream:
                RawStream {
                    name,
                    namespace,
                    source_defined_primary_key,
                },
            destination_sync_mode,
            primary_key,
        } in raw.streams
        {
            if catalog.find(namespace.as_deref(), &name).is_some() {
                continue;
            }
            let stream_name = stream_name(namespace.as_deref(), &name);
            let stream = *by_stream_name.entry(stream_name).or_insert_with_key(|key| {
                catalog.stream_names.push(key.clone());
                catalog.stream_names.len() - 1
            });
            catalog
                .by_name
                .entry(name.clone())
                .or_default()
                .push(catalog.streams.len());
            catalog.streams.push(ConfiguredStream {
                descriptor: StreamDescriptor { namespace, name },
                stream,
                destination_sync_mode: destination_sync_mode.unwrap_or_else(|| "append".to_owned()),
                primary_key: [primary_key, source_defined_primary_key]
                    .into_iter()
                    .flatten()
                    .find(|key| !key.is_empty())
                    .unwrap_or_default(),
            });
        }
        Ok(catalog)
    }

    /// The streams of the catalog, each once, in its order.
    pub fn streams(&self) -> &[ConfiguredStream] {
        &self.streams
    }

    /// The names of the Kinesis streams, each once.
    pub fn stream_names(&self) -> &[String] {
        &self.stream_names
    }

    /// The descriptor with this namespace and name. Absent and empty namespaces are told apart.
    pub fn find(&self, namespace: Option<&str>, name: &str) -> Option<DescriptorIndex> {
        self.by_name
            .get(name)?
            .iter()
            .copied()
            .find(|index| self.streams[*index].descriptor.namespace.as_deref() == namespace)
    }

    /// The error for a record of a stream that the catalog does not have.
    pub fn unknown_stream(namespace: Option<&str>, name: &str) -> Error {
        let mut described = String::new();
        // Writing to a `String` cannot fail.
        let _ = describe(&mut described, namespace, name);
        Error::system(format!(
            "A record came for the stream {described}, which is not in the catalog. The source and the connection do \
             not agree: refresh the source's schema in the connection, and run the sync again."
        ))
    }

    /// What the user should know about this catalog, one sentence each: names that come out alike, and
    /// sync modes that Kinesis cannot give.
    pub fn warnings(&self) -> Vec<String> {
        let mut first_of: HashMap<StreamIndex, &ConfiguredStream> = HashMap::new();
        let mut warnings = Vec::new();
        for configured in &self.streams {
            let first = first_of.entry(configured.stream).or_insert(configured);
            if first.descriptor != configured.descriptor {
                warnings.push(format!(
                    "The streams {} and {} both go to the Kinesis stream \"{}\": their names come out alike.",
                    first.descriptor, configured.descriptor, self.stream_names[configured.stream]
                ));
            }
            if configured.destination_sync_mode != "append" {
                warnings.push(format!(
                    "The stream {} asks for the sync mode \"{}\", but Kinesis can only append: nothing is replaced or \
                     deduplicated.",
                    configured.descriptor, configured.destination_sync_mode
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(streams: &str) -> Catalog {
        Catalog::from_json(format!(r#"{{"streams":[{streams}]}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn absent_equals_null_and_empty_is_another() {
        let catalog = catalog(
            r#"{"stream":{"name":"a"},"destination_sync_mode":"append"},
               {"stream":{"name":"a","namespace":""}},
               {"stream":{"name":"a","namespace":"n"},"destination_sync_mode":null}"#,
        );
        assert_eq!(catalog.find(None, "a"), Some(0));
        assert_eq!(catalog.find(Some(""), "a"), Some(1));
        assert_eq!(catalog.find(Some("n"), "a"), Some(2));
        assert_eq!(catalog.find(Some("m"), "a"), None);
        assert_eq!(catalog.stream_names(), ["_a", "n_a"]);
    }

    #[test]
    fn names_that_come_out_alike_share_a_stream_and_are_named_once() {
        let catalog = catalog(
            r#"{"stream":{"name":"a b"}},{"stream":{"name":"a-b"}},{"stream":{"name":"a-b"}}"#,
        );
        assert_eq!(catalog.streams()[0].stream, catalog.streams()[1].stream);
        assert_eq!(
            catalog.warnings(),
            [
                "The streams \"a b\" (no namespace) and \"a-b\" (no namespace) both go to the Kinesis stream \"_a_b\": \
                 their names come out alike."
            ]
        );
    }

    #[test]
    fn any_sync_mode_is_taken_and_what_kinesis_cannot_give_is_said() {
        for mode in ["overwrite", "append_dedup", "update", "new_in_2030"] {
            let catalog = catalog(&format!(
                r#"{{"stream":{{"name":"a","json_schema":{{}}}},"destination_sync_mode":"{mode}","generation_id":3}}"#
            ));
            assert_eq!(catalog.warnings().len(), 1);
            assert!(catalog.warnings()[0].contains(mode));
        }
        assert!(catalog("").warnings().is_empty());
    }

    #[test]
    fn the_chosen_primary_key_comes_before_the_one_of_the_source() {
        let catalog = catalog(
            r#"{"stream":{"name":"a","source_defined_primary_key":[["s"]]},"primary_key":[["c"]]},
               {"stream":{"name":"b","source_defined_primary_key":[["s"]]},"primary_key":[]},
               {"stream":{"name":"c","source_defined_primary_key":null}}"#,
        );
        let key = |index: usize| {
            let key = &catalog.streams()[index].primary_key;
            key.partition_key(r#"{"s":"source","c":"chosen"}"#)
        };
        assert_eq!(key(0).as_deref(), Some("chosen"));
        assert_eq!(key(1).as_deref(), Some("source"));
        assert_eq!(key(2), None);
    }

    #[test]
    fn what_is_not_a_catalog_is_a_config_error() {
        for text in [
            "",
            "nonsense",
            "[]",
            "{}",
            r#"{"streams":[{}]}"#,
            r#"{"streams":[{"stream":{}}]}"#,
        ] {
            let error = Catalog::from_json(text.as_bytes()).unwrap_err();
            assert_eq!(error.failure_type().as_str(), "config_error", "{text}");
        }
    }
}
