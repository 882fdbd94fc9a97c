//! The real binary, run as the platform runs it.
//!
//! ```ignore
//! let run = Write::to(&kinesis)
//!     .catalog(catalog([stream("users")]))
//!     .input([record("users", json!({"id": 1})), state_stream("users", json!({"cursor": 1}))])
//!     .run()
//!     .await;
//! run.assert_success();
//! ```

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::DEADLINE;
use super::messages::CANARY;
use super::server::Kinesis;

pub(crate) use super::finished::Finished;
pub(crate) use super::running::Running;

/// The credentials of a configuration that names none. Both are to be found in no output.
pub(crate) const ACCESS_KEY: &str = "AKIAC0FFEEACCESS7D1F";
/// See [`ACCESS_KEY`].
pub(crate) const PRIVATE_KEY: &str = "c0ffee/Private+7d1fKey0123456789abcdefgh";

/// A `write`.
pub(crate) struct Write;

impl Write {
    /// Into this server.
    pub(crate) fn to(kinesis: &Kinesis) -> Program {
        Program::args(["write"]).config(connection(kinesis))
    }
}

/// A `check`.
pub(crate) struct Check;

impl Check {
    /// Of this server.
    pub(crate) fn against(kinesis: &Kinesis) -> Program {
        Program::args(["check"]).config(connection(kinesis))
    }
}

/// The settings that lead to the server.
pub(crate) fn connection(kinesis: &Kinesis) -> Value {
    json!({
        "endpoint": kinesis.endpoint(),
        "region": "us-east-1",
        "accessKey": ACCESS_KEY,
        "privateKey": PRIVATE_KEY,
    })
}

/// A run of the binary that has yet to start.
pub(crate) struct Program {
    binary: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    config: Map<String, Value>,
    config_text: Option<String>,
    catalog: Option<String>,
    input: Vec<u8>,
    stdin: Stdin,
    deadline: Duration,
    protocol: bool,
}

/// What the process has as stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// What the test sends.
    Pipe,
    /// `/dev/null`.
    Null,
    /// Nothing: the descriptor is closed.
    Closed,
    /// A terminal, at which somebody presses Ctrl-D.
    Terminal,
}

impl Program {
    /// With these arguments, and `--config` and `--catalog` after them if there is one.
    pub(crate) fn args<T: Into<String>>(args: impl IntoIterator<Item = T>) -> Self {
        Self {
            binary: env!("CARGO_BIN_EXE_destination-kinesis").to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            config: Map::new(),
            config_text: None,
            catalog: None,
            input: Vec::new(),
            stdin: Stdin::Pipe,
            deadline: DEADLINE,
            protocol: true,
        }
    }

    /// Runs another program in the place of the connector.
    pub(crate) fn binary(mut self, path: &str) -> Self {
        self.binary = path.to_owned();
        self
    }

    /// One more argument, before `--config`.
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Sets these keys of the configuration, on top of those it has. A null removes the key.
    ///
    /// # Panics
    ///
    /// If `settings` is not an object.
    pub(crate) fn config(mut self, settings: Value) -> Self {
        let Value::Object(settings) = settings else {
            panic!("a configuration is an object")
        };
        for (key, value) in settings {
            if value.is_null() {
                self.config.remove(&key);
            } else {
                self.config.insert(key, value);
            }
        }
        self
    }

    /// Makes this the whole text of the configuration.
    pub(crate) fn config_text(mut self, text: &str) -> Self {
        self.config_text = Some(text.to_owned());
        self
    }

    /// Makes this the text of the catalog.
    pub(crate) fn catalog(mut self, text: impl Into<String>) -> Self {
        self.catalog = Some(text.into());
        self
    }

    /// Adds these lines to the input.
    pub(crate) fn input<T: Into<String>>(mut self, lines: impl IntoIterator<Item = T>) -> Self {
        for line in lines {
            self.input.extend_from_slice(line.into().as_bytes());
            self.input.push(b'\n');
        }
        self
    }

    /// Adds these bytes to the input, and no line end.
    pub(crate) fn raw_input(mut self, bytes: &[u8]) -> Self {
        self.input.extend_from_slice(bytes);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// What the process has as stdin.
    pub(crate) fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// How long the run may take before the test fails, if [`DEADLINE`] is too short.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The output is for a person (`--help`), not for the platform.
    pub(crate) fn plain_output(mut self) -> Self {
        self.protocol = false;
        self
    }

    /// Runs it with the input, to its end.
    pub(crate) async fn run(mut self) -> Finished {
        let input = std::mem::take(&mut self.input);
        let piped = self.stdin == Stdin::Pipe;
        let mut running = self.spawn().await;
        if piped {
            drop(running.feed_bytes(std::iter::once(input)));
        }
        running.finish().await
    }

    /// Starts it, and sends what input it has been given.
    pub(crate) async fn spawn(self) -> Running {
        let dir = TempDir::new().expect("a temporary directory");
        let mut args = self.args.clone();
        let config = self.config_text.clone().or_else(|| {
            let given = !self.config.is_empty();
            given.then(|| Value::Object(self.config.clone()).to_string())
        });
        for (option, text) in [("config", &config), ("catalog", &self.catalog)] {
            if let Some(text) = text {
                args.extend([format!("--{option}"), write_file(dir.path(), option, text)]);
            }
        }
        let terminal = (self.stdin == Stdin::Terminal).then(Terminal::new);
        let mut command = if self.stdin == Stdin::Closed {
            // Only a shell can start a process without a stdin.
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", r#"exec "$0" "$@" <&-"#, &self.binary]);
            shell
        } else {
            Command::new(&self.binary)
        };
        command
            .args(&args)
            .env_clear()
            .env("HOME", dir.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(&self.env)
            .current_dir(dir.path())
            .stdin(match &terminal {
                Some(terminal) => terminal.user_end(),
                None if self.stdin == Stdin::Pipe => Stdio::piped(),
                None => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Ok(profile) = std::env::var("LLVM_PROFILE_FILE") {
            // Where a coverage run wants its counts, which is nowhere near HOME.
            command.env("LLVM_PROFILE_FILE", profile);
        }
        let secrets = secrets(&self.config);
        let mut running = Running::start(command, dir, self.deadline, self.protocol, secrets);
        if let Some(terminal) = terminal {
            running.keep(terminal);
        }
        if !self.input.is_empty() {
            running.send_raw(&self.input).await;
        }
        running
    }
}

/// A terminal: what a person has in front of them.
pub(super) struct Terminal(std::fs::File);

impl Terminal {
    fn new() -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&screen).expect("a terminal for us");
        unlockpt(&screen).expect("a terminal that can be opened");
        Self(screen.into())
    }

    /// The end of it that a program has as its stdin. Ctrl-D has been pressed.
    fn user_end(&self) -> Stdio {
        let path = ptsname(&self.0, Vec::new()).expect("the name of the terminal");
        let path = path.to_str().expect("a plain name");
        let end = std::fs::File::options().read(true).write(true).open(path);
        let end = end.expect("the terminal opens");
        (&self.0).write_all(b"\x04").expect("a key can be pressed");
        end.into()
    }
}

fn write_file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(format!("{name}.json"));
    std::fs::write(&path, text).expect("a file in a temporary directory");
    path.to_str()
        .expect("a temporary directory with a plain name")
        .to_owned()
}

/// What may be in no output.
fn secrets(config: &Map<String, Value>) -> Vec<String> {
    let keys = ["accessKey", "privateKey"]
        .into_iter()
        .filter_map(|key| config.get(key)?.as_str());
    // A blank key is no secret, and would be found everywhere.
    let keys = keys.map(str::trim).filter(|key| !key.is_empty());
    keys.chain([CANARY]).map(str::to_owned).collect()
}
