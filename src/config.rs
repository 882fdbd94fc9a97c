//! The connector's settings: from the JSON that a person filled in to values that are known to be good.
//!
//! One row of `SETTINGS` for each setting, one line in [`KinesisConfig::from_json`] that reads it; `spec.json`, the form that the
//! person sees, is held to the same table by a test. The keys of the first, Java, edition keep their names, types and meaning, so
//! that a configuration saved for it works unchanged.

use std::fmt;
use std::time::Duration;

use crate::error::Error;

use self::form::{Choice, Fault, Form, Integer, Pairs, Reported, Setting, Text};

mod endpoint;
pub(crate) mod form;

const ENDPOINT: Text = Text::new("endpoint");
const REGION: Text = Text::new("region");
const ACCESS_KEY: Text = Text::secret("accessKey");
const PRIVATE_KEY: Text = Text::secret("privateKey");
const SESSION_TOKEN: Text = Text::secret("sessionToken");
const ROLE_ARN: Text = Text::new("roleArn");
const EXTERNAL_ID: Text = Text::new("externalId");

/// No limit of its own is documented for one stream, only the type of the number and a quota of the account, which users can have
/// raised ([CreateStream](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html)).
const SHARD_COUNT: Integer = Integer {
    key: "shardCount",
    default: Some(5),
    minimum: 1,
    maximum: i32::MAX.cast_unsigned(),
};

/// At most 500 records
/// ([PutRecords](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html)).
const BUFFER_SIZE: Integer = Integer {
    key: "bufferSize",
    default: Some(100),
    minimum: 1,
    maximum: 500,
};

/// The platform fails a sync that has moved nothing for two hours. Ten minutes are left to say why it failed.
const RETRY_TIMEOUT_SECONDS: Integer = Integer {
    key: "retryTimeoutSeconds",
    default: Some(600),
    minimum: 1,
    maximum: 6600,
};

const STREAM_MODE: Choice = Choice {
    key: "streamMode",
    options: &["PROVISIONED", "ON_DEMAND"],
};

/// From 1 MiB, which each stream takes, to 10 MiB
/// ([quotas](https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html)).
const MAX_RECORD_SIZE_KIB: Integer = Integer {
    key: "maxRecordSizeKiB",
    default: None,
    minimum: 1024,
    maximum: 10240,
};

const OVERSIZED_RECORDS: Choice = Choice {
    key: "oversizedRecords",
    options: &["fail", "skip"],
};

/// At most 50 when a stream is created
/// ([CreateStream](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html)).
const TAGS: Pairs = Pairs {
    key: "tags",
    count_max: 50,
    key_chars_max: 128,
    value_chars_max: 256,
};

const REQUEST_FORMAT: Choice = Choice {
    key: "requestFormat",
    options: &["auto", "json", "cbor"],
};

const PARTITION_KEY: Choice = Choice {
    key: "partitionKey",
    options: &["random", "primary_key"],
};

const AGGREGATION: Choice = Choice {
    key: "aggregation",
    options: &["off", "kpl"],
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
    Setting::Text(SESSION_TOKEN),
    Setting::Text(ROLE_ARN),
    Setting::Text(EXTERNAL_ID),
    Setting::Choice(STREAM_MODE),
    Setting::Integer(MAX_RECORD_SIZE_KIB),
    Setting::Choice(OVERSIZED_RECORDS),
    Setting::Pairs(TAGS),
    Setting::Choice(REQUEST_FORMAT),
    Setting::Choice(PARTITION_KEY),
    Setting::Choice(AGGREGATION),
];

/// The connector's settings, all of them valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KinesisConfig {
    connection: ConnectionSettings,
    new_streams: NewStreams,
    oversized_records: OversizedRecords,
    request_format: RequestFormat,
    keys: KeySource,
    aggregates: bool,
    buffer_size: usize,
    retry_timeout: Duration,
}

/// What a stream gets that the connector creates. One that exists is used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStreams {
    /// Shards and who looks after them.
    pub mode: StreamMode,
    /// How large a record may be, in KiB, if that is not left to AWS.
    pub max_record_size_kib: Option<u32>,
    /// Tags, each with its value.
    pub tags: Vec<(String, String)>,
}

/// How the capacity of a stream is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamMode {
    /// So many shards, 1 or more, until somebody changes it.
    Provisioned(u32),
    /// AWS adds and removes shards.
    OnDemand,
}

/// What becomes of a record that its stream does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OversizedRecords {
    /// The sync ends.
    Fail,
    /// It is left out, and counted.
    Skip,
}

/// How PutRecords requests are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFormat {
    /// CBOR for AWS's own endpoints, JSON for others.
    Auto,
    /// JSON.
    Json,
    /// CBOR, and JSON where the server does not take it.
    Cbor,
}

/// What the partition keys of records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// Each record's id: any shard may take it.
    Random,
    /// The values of the stream's primary key. Records of one key are stored in the order they came in.
    PrimaryKey,
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
        let stream_mode = form.choice(STREAM_MODE);
        let max_record_size_kib = form.integer(MAX_RECORD_SIZE_KIB);
        let oversized_records = form.choice(OVERSIZED_RECORDS);
        let tags = form.pairs(TAGS);
        let request_format = form.choice(REQUEST_FORMAT);
        let keys = form.choice(PARTITION_KEY);
        let aggregates = form.choice(AGGREGATION);
        form.finish(|| {
            let shard_count = shard_count?.unwrap_or_default();
            Ok(Self {
                connection: connection?,
                new_streams: NewStreams {
                    mode: [StreamMode::Provisioned(shard_count), StreamMode::OnDemand]
                        [stream_mode?],
                    max_record_size_kib: max_record_size_kib?,
                    tags: tags?,
                },
                oversized_records: [OversizedRecords::Fail, OversizedRecords::Skip]
                    [oversized_records?],
                request_format: [
                    RequestFormat::Auto,
                    RequestFormat::Json,
                    RequestFormat::Cbor,
                ][request_format?],
                keys: [KeySource::Random, KeySource::PrimaryKey][keys?],
                aggregates: [false, true][aggregates?],
                buffer_size: usize::try_from(buffer_size?.unwrap_or_default())
                    .unwrap_or(usize::MAX),
                retry_timeout: Duration::from_secs(
                    retry_timeout_seconds?.unwrap_or_default().into(),
                ),
            })
        })
    }

    /// How to reach Kinesis, and as whom.
    #[must_use]
    pub const fn connection(&self) -> &ConnectionSettings {
        &self.connection
    }

    /// What a stream gets that the connector creates.
    #[must_use]
    pub const fn new_streams(&self) -> &NewStreams {
        &self.new_streams
    }

    /// What becomes of a record that its stream does not take.
    #[must_use]
    pub const fn oversized_records(&self) -> OversizedRecords {
        self.oversized_records
    }

    /// How PutRecords requests are encoded.
    #[must_use]
    pub const fn request_format(&self) -> RequestFormat {
        self.request_format
    }

    /// What the partition keys of records are.
    #[must_use]
    pub const fn keys(&self) -> KeySource {
        self.keys
    }

    /// Whether many records go in one Kinesis record, as the Kinesis Producer Library packs them.
    #[must_use]
    pub const fn aggregates(&self) -> bool {
        self.aggregates
    }

    /// Kinesis records per PutRecords request at most, 1 to 500.
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
pub struct CredentialsSource {
    base: BaseCredentials,
    role: Option<Role>,
}

/// The credentials to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BaseCredentials {
    /// From the configuration.
    Static {
        /// The access key id. Not secret in AWS's eyes, but nothing that belongs into a log either.
        access_key_id: Secret,
        /// The secret access key.
        secret_access_key: Secret,
        /// Comes with keys that expire.
        session_token: Option<Secret>,
    },
    /// From wherever the AWS SDK finds them: environment, shared files, web identity, container, instance.
    DefaultChain,
}

/// A role that is assumed with the credentials to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Role {
    /// Its name.
    pub arn: String,
    /// What the role's owner asks for in addition.
    pub external_id: Option<String>,
}

impl CredentialsSource {
    /// The credentials to begin with.
    #[must_use]
    pub const fn base(&self) -> &BaseCredentials {
        &self.base
    }

    /// The role to assume with them.
    #[must_use]
    pub const fn role(&self) -> Option<&Role> {
        self.role.as_ref()
    }

    /// Whether new ones can be had when they expire.
    #[must_use]
    pub const fn is_renewable(&self) -> bool {
        self.role.is_some() || matches!(self.base, BaseCredentials::DefaultChain)
    }

    fn read(form: &mut Form) -> Result<Self, Reported> {
        let base = Self::read_base(form);
        let role = Self::read_role(form);
        Ok(Self {
            base: base?,
            role: role?,
        })
    }

    fn read_base(form: &mut Form) -> Result<BaseCredentials, Reported> {
        let access_key_id = form.text(ACCESS_KEY, parse_access_key);
        let secret_access_key = form.text(PRIVATE_KEY, |text| Ok(Secret(text.to_owned())));
        let session_token = form.text(SESSION_TOKEN, parse_access_key);
        match (access_key_id?, secret_access_key?, session_token?) {
            (Some(access_key_id), Some(secret_access_key), session_token) => Ok(BaseCredentials::Static {
                access_key_id,
                secret_access_key,
                session_token,
            }),
            (None, None, None) => Ok(BaseCredentials::DefaultChain),
            (None, None, Some(_)) => Err(form.report(format!(
                "{} is set, but {} and {} are not: fill in all three, or clear all to use the credentials of the environment",
                SESSION_TOKEN.key, ACCESS_KEY.key, PRIVATE_KEY.key
            ))),
            (Some(_), None, _) => Err(form.report(only_one_key(PRIVATE_KEY, ACCESS_KEY))),
            (None, Some(_), _) => Err(form.report(only_one_key(ACCESS_KEY, PRIVATE_KEY))),
        }
    }

    fn read_role(form: &mut Form) -> Result<Option<Role>, Reported> {
        let arn = form.text(ROLE_ARN, parse_role_arn);
        let external_id = form.text(EXTERNAL_ID, |text| Ok(text.to_owned()));
        match (arn?, external_id?) {
            (Some(arn), external_id) => Ok(Some(Role { arn, external_id })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(form.report(format!(
                "{} is set, but {} is not: fill in the role that asks for it, or clear it",
                EXTERNAL_ID.key, ROLE_ARN.key
            ))),
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

/// `arn:<partition>:iam::<account>:role/<path and name>`.
fn parse_role_arn(text: &str) -> Result<String, Fault> {
    const ACCOUNT_DIGITS: usize = 12;
    let parts: Vec<_> = text.splitn(6, ':').collect();
    let is_role = matches!(parts[..], ["arn", partition, "iam", "", account, resource]
        if partition.starts_with("aws")
            && account.len() == ACCOUNT_DIGITS
            && account.bytes().all(|b| b.is_ascii_digit())
            && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty()));
    if is_role && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(Fault::new(
            "is not the ARN of an IAM role",
            "copy it from the role's page in the AWS console; it looks like arn:aws:iam::123456789012:role/name",
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
