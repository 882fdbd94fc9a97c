//! The one error of the connector's boundary: whose fault it is, what to tell the person, what to tell the
//! maintainer.

use std::fmt;

/// A failure, as the platform and its user see it.
///
/// The message is for the person who must act and names the setting or stream and the next step. What only a
/// maintainer can use (AWS error codes, request ids) goes to [`Error::with_internal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    failure_type: FailureType,
    message: String,
    internal: Option<String>,
    stack_trace: Option<String>,
}

/// Whose fault a failure is. It decides whether the platform tries the sync again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureType {
    /// The user has to change something first: a setting, a right, the data. Not tried again.
    Config,
    /// It may well work the next time: throttling, the network, a fault of the service.
    Transient,
    /// A fault of a program: malformed input from the source or the platform, or a bug of ours.
    System,
}

impl FailureType {
    /// The name of this type in an Airbyte `TRACE` message.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config_error",
            Self::Transient => "transient_error",
            Self::System => "system_error",
        }
    }
}

impl fmt::Display for FailureType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error {
    /// An error that the user has to correct.
    #[must_use]
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(FailureType::Config, message.into())
    }

    /// An error that may be gone at the next attempt.
    #[must_use]
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(FailureType::Transient, message.into())
    }

    /// An error of a program: the source, the platform or this connector.
    #[must_use]
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(FailureType::System, message.into())
    }

    const fn new(failure_type: FailureType, message: String) -> Self {
        Self {
            failure_type,
            message,
            internal: None,
            stack_trace: None,
        }
    }

    /// Adds a sentence to the message for the person, where time can mend the error.
    #[must_use]
    pub fn with_outlook(mut self, sentence: &str) -> Self {
        if self.failure_type == FailureType::Transient {
            self.message.push(' ');
            self.message.push_str(sentence);
        }
        self
    }

    /// Adds what a maintainer needs: error codes, request ids, the text of the cause. No secret, no record content.
    #[must_use]
    pub fn with_internal(mut self, internal: impl Into<String>) -> Self {
        self.internal = Some(internal.into());
        self
    }

    /// Adds where it happened.
    #[must_use]
    pub fn with_stack_trace(mut self, stack_trace: impl Into<String>) -> Self {
        self.stack_trace = Some(stack_trace.into());
        self
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn failure_type(&self) -> FailureType {
        self.failure_type
    }

    /// The text for the person who must act.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The text for the maintainer; the same as [`Error::message`] where there is nothing to add.
    #[must_use]
    pub fn internal_message(&self) -> &str {
        self.internal.as_deref().unwrap_or(&self.message)
    }

    /// Where it happened, if that was noted.
    #[must_use]
    pub fn stack_trace(&self) -> Option<&str> {
        self.stack_trace.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_constructor_gives_its_failure_type_under_the_name_of_the_protocol() {
        assert_eq!(Error::config("x").failure_type().as_str(), "config_error");
        assert_eq!(
            Error::transient("x").failure_type().as_str(),
            "transient_error"
        );
        assert_eq!(Error::system("x").failure_type().as_str(), "system_error");
    }

    #[test]
    fn the_person_sees_the_message_and_the_maintainer_the_rest() {
        let error = Error::transient("Kinesis does not answer.");
        assert_eq!(error.internal_message(), "Kinesis does not answer.");

        let error = error.with_internal("timeout after 10 s, request id 7");
        assert_eq!(error.message(), "Kinesis does not answer.");
        assert_eq!(error.to_string(), "Kinesis does not answer.");
        assert_eq!(error.internal_message(), "timeout after 10 s, request id 7");
    }
}
