//! The settings: whatever is written there, what comes of it is valid or a config error, and a secret
//! shows in neither.

use destination_kinesis::config::KinesisConfig;
use destination_kinesis::error::FailureType;
use serde_json::Value;

/// What the secrets of the corpus have in them.
const MARK: &str = "SeCrEt";

/// A configuration.
pub fn check(text: &[u8]) {
    let read = KinesisConfig::from_json(text);
    match &read {
        Ok(config) => {
            assert!((1..=500).contains(&config.buffer_size()));
            assert!((1..=6600).contains(&config.retry_timeout().as_secs()));
            assert!(config.new_streams().tags.len() <= 50);
        }
        Err(error) => {
            assert_eq!(error.failure_type(), FailureType::Config);
            assert!(!error.message().is_empty());
        }
    }
    let shown = format!("{read:?}");
    // A byte order mark in front is passed over.
    let json = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let may_be_shown = match serde_json::from_slice(json) {
        Ok(Value::Object(mut settings)) => {
            for secret in ["accessKey", "privateKey", "sessionToken"] {
                settings.remove(secret);
            }
            Value::Object(settings).to_string().contains(MARK)
        }
        Ok(_) | Err(_) => false,
    };
    assert!(may_be_shown || !shown.contains(MARK), "{shown}");
}
