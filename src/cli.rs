//! The command line: the verbs as subcommands, and as the flags that scripts for the Java connector use.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// What the user asked for.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Print the specification: what can be configured
    Spec,
    /// Try the connection: create a stream, write to it, delete it again
    Check {
        /// The configuration, a JSON file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Ignored
        #[arg(long, value_name = "FILE", hide = true)]
        catalog: Option<PathBuf>,
    },
    /// Deliver the Airbyte messages on standard input, and print the states that are earned
    Write {
        /// The configuration, a JSON file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The configured catalog, a JSON file
        #[arg(long, value_name = "FILE")]
        catalog: PathBuf,
    },
}

/// Airbyte destination for Amazon Kinesis Data Streams.
///
/// Reads Airbyte messages, one JSON object a line, and stores the records in Kinesis. A state is
/// printed when every record before it is stored.
#[derive(Debug, Parser)]
#[command(name = "destination-kinesis", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  destination-kinesis spec
  destination-kinesis check --config config.json
  destination-kinesis write --config config.json --catalog catalog.json < messages.jsonl

The smallest configuration is {\"region\": \"us-east-1\"}: the credentials then come from the environment.
The verbs may also be given as flags: --spec, --check, --write.

Environment:
  LOG_LEVEL   ERROR, WARN, INFO (default), DEBUG or TRACE

Exit codes:
  0  done: all records are stored, all states are out; for check: there is a verdict
  1  failed: the last line of the output says why
  2  wrong usage";

/// Text for a person, in place of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Text {
    /// The help or the version, which was asked for.
    Asked(String),
    /// What is wrong with the arguments.
    Usage(String),
}

/// Reads the arguments, without the program's name.
///
/// # Errors
///
/// The [`Text`] to show instead of running a command.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Text> {
    let arguments = verb_first(arguments.into_iter().collect());
    let name = OsString::from("destination-kinesis");
    match Arguments::try_parse_from(std::iter::once(name).chain(arguments)) {
        Ok(arguments) => Ok(arguments.command),
        Err(error) if error.use_stderr() => {
            Err(Text::Usage(error.to_string().trim_end().to_owned()))
        }
        Err(error) => Err(Text::Asked(error.to_string())),
    }
}

/// Turns `--write --config F` and `--config F --write` into `write --config F`.
fn verb_first(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let flag = arguments.iter().position(|argument| {
        argument == "--spec" || argument == "--check" || argument == "--write"
    });
    if let Some(flag) = flag {
        let verb = arguments.remove(flag);
        let verb = verb.to_string_lossy().trim_start_matches('-').to_owned();
        arguments.insert(0, verb.into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(line: &str) -> Result<Command, Text> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn both_spellings_of_each_verb() {
        let write = || Command::Write {
            config: "c".into(),
            catalog: "k".into(),
        };
        let check = || Command::Check {
            config: "c".into(),
            catalog: None,
        };
        for (line, command) in [
            ("spec", Command::Spec),
            ("--spec", Command::Spec),
            ("check --config c", check()),
            ("--check --config=c", check()),
            ("--config c --check", check()),
            ("write --config c --catalog k", write()),
            ("write --catalog=k --config=c", write()),
            ("--write --config c --catalog k", write()),
        ] {
            assert_eq!(parse_text(line), Ok(command), "{line}");
        }
        assert!(parse_text("check --config c --catalog k").is_ok());
    }

    #[test]
    fn wrong_usage_is_told() {
        for (line, part) in [
            ("", "Usage: destination-kinesis <COMMAND>"),
            ("read", "unrecognized subcommand 'read'"),
            ("spec --config c", "unexpected argument '--config'"),
            ("check", "--config <FILE>"),
            ("write --config c", "--catalog <FILE>"),
            (
                "write --config c --catalog k --state s",
                "unexpected argument '--state'",
            ),
            (
                "write --config c --catalog k extra",
                "unexpected argument 'extra'",
            ),
            (
                "--check --write --config c",
                "unexpected argument '--write'",
            ),
        ] {
            match parse_text(line) {
                Err(Text::Usage(text)) => assert!(text.contains(part), "{line}: {text}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn help_and_version_are_for_a_person() {
        for line in ["--help", "-h", "write --help"] {
            assert!(
                matches!(parse_text(line), Err(Text::Asked(text)) if text.contains("Usage:")),
                "{line}"
            );
        }
        let version = format!("destination-kinesis {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(parse_text("--version"), Err(Text::Asked(version)));
    }
}
