//! The connector's settings: from the JSON that a person filled in to values that are known to be good.
//!
//! One row of `SETTINGS` for each setting, one line in [`KinesisConfig::from_json`] that reads it; `spec.json`, the form that the
//! person sees, is held to the same table by a test. The keys of the first, Java, edition keep their names, types and meaning, so
//! that a configuration saved for it works unchanged.

use std::fmt;
use std::time::Duration;

use crate::error::Error;

use self::form::{Fault, Form, Integer, Reported, Setting, Text};

mod endpoint;
pub(crate) mod form;

const ENDPOINT: Text = Text::new("endpoint");
const REGION: Text = Text::new("region");
const ACCESS_KEY: Text = Text::secret("accessKey");
const PRIVATE_KEY: Text = Text::secret("privateKey");

/// No limit of its own is documented for one stream, only the type of the number and a quota of the account, which users can have
/// raised ([CreateStream](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html)).
const SHARD_COUNT: Integer = Integer {
    key: "shardCount",
    default: 5,
    minimum: 1,
    maximum: i32::MAX.cast_unsigned(),
};

/// At most 500 records
/// ([PutRecords](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html)).
const BUFFER_SIZE: Integer = Integer {
    key: "bufferSize",
    default: 100,
    minimum: 1,
    maximum: 500,
};

/// The platform fails a sync that has moved nothing for two hours. Ten minutes are left to say why it failed.
const RETRY_TIMEOUT_SECONDS: Integer = Integer {
    key: "retryTimeoutSeconds",
    default: 600,
    minimum: 1,
    maximum: 6600,
};

/// Every setting there is.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::Text(ENDPOINT),
    Setting::Text(REGION),
    Setting::Integer(SHARD_COUNT),
    Setting::Text(ACCESS_KEY),
    Setting::Text(PRIVATE_KEY),
    Setting::Integer(BUFFER_SIZE),
    Setting::Integer(RETRY_TIMEOUT_SECONDS),
];

/// The connector's settings, all of them valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KinesisConfig {
    connection: ConnectionSettings,
    shard_count: u32,
    buffer_size: usize,
    retry_timeout: Duration,
}

impl KinesisConfig {
    /// Reads a configuration. Keys that it does not know are passed over.
    ///
    /// # Errors
    ///
    /// A config error that tells all that is wrong at once: the key, the value (unless it is, or could be, a secret), what is
    /// allowed and what to write instead.
    pub fn from_json(text: &[u8]) -> Result<Self, Error> {
        let mut form = Form::parse(text)?;
        // Each is read before the first `?`, so that every problem is told.
        let connection = ConnectionSettings::read(&mut form);
        let shard_count = form.integer(SHARD_COUNT);
        let buffer_size = form.integer(BUFFER_SIZE);
        let retry_timeout_seconds = form.integer(RETRY_TIMEOUT_SECONDS);
        form.finish(|| {
            Ok(Self {
                connection: connection?,
                shard_count: shard_count?,
                buffer_size: usize::try_from(buffer_size?).unwrap_or(usize::MAX),
                retry_timeout: Duration::from_secs(retry_timeout_seconds?.into()),
            })
        })
    }

    /// How to reach Kinesis, and as whom.
    #[must_use]
    pub const fn connection(&self) -> &ConnectionSettings {
        &self.connection
    }

    /// Shards of a stream that the connector creates, 1 or more.
    #[must_use]
    pub const fn shard_count(&self) -> u32 {
        self.shard_count
    }

    /// Records per PutRecords request at most, 1 to 500.
    #[must_use]
    pub const fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    /// How long a stream may go without any progress before the sync fails, 1 to 6600 seconds.
    #[must_use]
    pub const fn retry_timeout(&self) -> Duration {
        self.retry_timeout
    }
}

/// How to reach Kinesis, and as whom: all that tells one client from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectionSettings {
    endpoint: Option<String>,
    region: Option<String>,
    credentials: CredentialsSource,
}

impl ConnectionSettings {
    fn read(form: &mut Form) -> Result<Self, Reported> {
        let endpoint = form.text(ENDPOINT, endpoint::parse);
        let region = form.text(REGION, parse_region);
        let credentials = CredentialsSource::read(form);
        Ok(Self {
            endpoint: endpoint?,
            region: region?,
            credentials: credentials?,
        })
    }

    /// The URL of a Kinesis other than AWS's own for the region: absolute, `http` or `https`, without a slash at its end.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The AWS region, in lower case. None: the ambient AWS configuration decides.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Where the credentials come from.
    #[must_use]
    pub const fn credentials(&self) -> &CredentialsSource {
        &self.credentials
    }
}

/// Where the credentials for AWS come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CredentialsSource {
    /// From the configuration.
    Static {
        /// The access key id. Not secret in AWS's eyes, but nothing that belongs into a log either.
        access_key_id: Secret,
        /// The secret access key.
        secret_access_key: Secret,
    },
    /// From wherever the AWS SDK finds them: environment, shared files, web identity, container, instance.
    DefaultChain,
}

impl CredentialsSource {
    fn read(form: &mut Form) -> Result<Self, Reported> {
        let access_key_id = form.text(ACCESS_KEY, parse_access_key);
        let secret_access_key = form.text(PRIVATE_KEY, |text| Ok(Secret(text.to_owned())));
        match (access_key_id?, secret_access_key?) {
            (Some(access_key_id), Some(secret_access_key)) => Ok(Self::Static {
                access_key_id,
                secret_access_key,
            }),
            (None, None) => Ok(Self::DefaultChain),
            (Some(_), None) => Err(form.report(only_one_key(PRIVATE_KEY, ACCESS_KEY))),
            (None, Some(_)) => Err(form.report(only_one_key(ACCESS_KEY, PRIVATE_KEY))),
        }
    }
}

fn only_one_key(missing: Text, given: Text) -> String {
    format!(
        "{} is missing, while {} is set: fill in both, or clear both to use the credentials of the environment \
         (the default AWS credential chain)",
        missing.key, given.key
    )
}

/// A text that no output may show: it is printed as `***` wherever it is printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The id is sent in a header, which has to be printable ASCII.
fn parse_access_key(text: &str) -> Result<Secret, Fault> {
    if text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        Ok(Secret(text.to_owned()))
    } else {
        Err(Fault::new(
            "has characters that no AWS access key has",
            "copy it once more from where it was issued",
        ))
    }
}

/// A region becomes part of a host name, so it has to be a DNS label.
fn parse_region(text: &str) -> Result<String, Fault> {
    const LABEL_BYTES_MAX: usize = 63;
    /// No region has so long a part between its hyphens, but a key that was pasted into this field has, and a region is printed.
    const PART_BYTES_MAX: usize = 19;

    let region: String = text
        .chars()
        // Documents and web pages turn the hyphen into one of these, and it comes along when a region is copied.
        .map(|c| match c {
            '\u{2010}'..='\u{2013}' => '-',
            c => c.to_ascii_lowercase(),
        })
        .collect();
    let is_label = region.len() <= LABEL_BYTES_MAX
        && region
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && region.split('-').all(|part| part.len() <= PART_BYTES_MAX)
        && !region.starts_with('-')
        && !region.ends_with('-');
    if is_label {
        Ok(region)
    } else {
        Err(Fault::new(
            "is not the code of an AWS region, which has only the letters a to z, digits and hyphens",
            "write a code such as us-east-1, or clear it to use the region of the environment",
        ))
    }
}

#[cfg(test)]
mod tests;
