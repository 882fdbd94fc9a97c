//! A process that runs, and that the test can talk to.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::finished::{Finished, Line};
use super::program::Terminal;
use super::within;

/// What has come on stdout.
#[derive(Default)]
struct Output {
    lines: Vec<Line>,
    /// Nothing more will come.
    ended: bool,
}

/// A process that runs.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Reads stdout, until the test closes it.
    stdout: Option<JoinHandle<()>>,
    stderr: JoinHandle<Vec<u8>>,
    output: Arc<watch::Sender<Output>>,
    /// How many states [`Self::next_state`] has returned.
    states_seen: usize,
    /// Whether the output may end in the middle of a line: the test did that.
    torn: bool,
    started: Instant,
    deadline: Duration,
    protocol: bool,
    secrets: Vec<String>,
    /// Its stdin, if that is a terminal.
    _terminal: Option<Terminal>,
    /// Removed at the end.
    _dir: TempDir,
}

impl Running {
    /// Starts the process. Its output is read from now on, whether or not the test looks at it.
    pub(super) fn start(
        mut command: Command,
        dir: TempDir,
        deadline: Duration,
        protocol: bool,
        secrets: Vec<String>,
    ) -> Self {
        let started = Instant::now();
        let mut child = command.spawn().expect("the binary starts");
        let output = Arc::new(watch::Sender::new(Output::default()));
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        Self {
            stdin: child.stdin.take(),
            child,
            stdout: Some(tokio::spawn(capture_lines(stdout, output.clone()))),
            stderr: tokio::spawn(capture_bytes(stderr)),
            output,
            states_seen: 0,
            torn: false,
            started,
            deadline,
            protocol,
            secrets,
            _terminal: None,
            _dir: dir,
        }
    }

    /// Keeps the terminal in front of the process.
    pub(super) fn keep(&mut self, terminal: Terminal) {
        self._terminal = Some(terminal);
    }

    /// Sends a line. A process that reads no more is not an error here: its output tells why.
    ///
    /// # Panics
    ///
    /// If the process neither takes it nor ends within [`DEADLINE`](super::DEADLINE), or stdin was
    /// closed.
    pub(crate) async fn send(&mut self, line: impl Into<String>) {
        let mut line = line.into();
        line.push('\n');
        self.send_raw(line.as_bytes()).await;
    }

    /// Sends bytes, as [`Self::send`] sends a line.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        // An error is a broken pipe.
        let _ = within("the process to read its input", stdin.write_all(bytes)).await;
    }

    /// Sends lines in the background, and then closes stdin. Tells how many bytes the process has
    /// taken.
    pub(crate) fn feed<T: Into<String>>(
        &mut self,
        lines: impl IntoIterator<Item = T, IntoIter: Send> + Send + 'static,
    ) -> watch::Receiver<usize> {
        self.feed_bytes(lines.into_iter().map(|line| {
            let mut line = line.into().into_bytes();
            line.push(b'\n');
            line
        }))
    }

    /// [`Self::feed`] of parts that need not be lines.
    pub(crate) fn feed_bytes(
        &mut self,
        parts: impl Iterator<Item = Vec<u8>> + Send + 'static,
    ) -> watch::Receiver<usize> {
        let mut stdin = self.stdin.take().expect("stdin is open");
        let (taken, receiver) = watch::channel(0);
        tokio::spawn(async move {
            for part in parts {
                // An error is a broken pipe: the process has ended, or is about to.
                if stdin.write_all(&part).await.is_err() {
                    break;
                }
                taken.send_modify(|taken| *taken += part.len());
            }
        });
        receiver
    }

    /// Ends the input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes the reading end of stdout: the next write of the process fails.
    pub(crate) async fn close_stdout(&mut self) {
        self.torn = true;
        if let Some(reader) = self.stdout.take() {
            reader.abort();
            // The pipe is closed when the task that held it is gone, whether cut short or at the
            // end.
            let _ = reader.await;
        }
        self.output.send_modify(|output| output.ended = true);
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGINT.
    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.torn = true;
        self.signal(Signal::KILL);
    }

    /// Stops the process (SIGSTOP) until [`Self::resume`].
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        kill_process(pid, signal).expect("the process is there");
    }

    fn pid(&self) -> u32 {
        self.child
            .id()
            .expect("the process has not been waited for")
    }

    /// The memory the process has resident, in bytes.
    pub(crate) fn rss_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most memory the process has had resident, in bytes.
    pub(crate) fn peak_rss_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// The memory the process has resident, in bytes, if it has not ended.
    pub(crate) fn rss_so_far(&self) -> Option<u64> {
        status_bytes(self.child.id()?, "VmRSS:")
    }

    /// The most memory the process has had resident, in bytes, if it has not ended.
    pub(crate) fn peak_rss_so_far(&self) -> Option<u64> {
        status_bytes(self.child.id()?, "VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> u64 {
        status_bytes(self.pid(), field).expect("a process in memory")
    }

    /// The lines that have come so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.output.borrow().lines.clone()
    }

    /// How many states have come so far.
    pub(crate) fn states_so_far(&self) -> usize {
        self.output
            .borrow()
            .lines
            .iter()
            .filter(|line| line.is("STATE"))
            .count()
    }

    /// Waits for the state after the one it returned before.
    ///
    /// # Panics
    ///
    /// If none comes before the process ends, or within [`DEADLINE`](super::DEADLINE).
    pub(crate) async fn next_state(&mut self) -> Line {
        within("a state", self.next_state_in_its_time()).await
    }

    /// The same, for a test that knows how long to wait.
    pub(crate) async fn next_state_in_its_time(&mut self) -> Line {
        let skip = self.states_seen;
        self.states_seen += 1;
        self.wait_for("a state", |lines| {
            lines.iter().filter(|line| line.is("STATE")).nth(skip)
        })
        .await
    }

    /// Waits for a message, which may have come long ago.
    ///
    /// # Panics
    ///
    /// If none comes before the process ends, or within [`DEADLINE`](super::DEADLINE).
    pub(crate) async fn wait_for_message(&self, wanted: impl Fn(&Line) -> bool) -> Line {
        let found = self.wait_for("a message", |lines| lines.iter().find(|line| wanted(line)));
        within("a message", found).await
    }

    async fn wait_for(&self, what: &str, find: impl Fn(&[Line]) -> Option<&Line>) -> Line {
        let mut output = self.output.subscribe();
        let found = output
            .wait_for(|output| output.ended || find(&output.lines).is_some())
            .await;
        let output = found.expect("the sender is here");
        let line = find(&output.lines).cloned();
        line.unwrap_or_else(|| {
            panic!(
                "{what} has not come before the end of\n{}",
                Line::join(&output.lines)
            )
        })
    }

    /// Waits until the process has ended by itself, its input open as it may be.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub(crate) async fn ended(&mut self) {
        self.wait().await;
    }

    async fn wait(&mut self) -> ExitStatus {
        match tokio::time::timeout(self.deadline, self.child.wait()).await {
            Ok(status) => status.expect("the process can be waited for"),
            Err(_) => panic!(
                "the process still runs after {:?}. Its output:\n{}",
                self.deadline,
                Line::join(&self.output.borrow().lines)
            ),
        }
    }

    /// Ends the input, waits for the end of the process and looks at its output: whatever happened,
    /// it has to keep the protocol.
    ///
    /// # Panics
    ///
    /// If it does not end in time, or did not keep the protocol.
    pub(crate) async fn finish(mut self) -> Finished {
        self.close_stdin();
        let status = self.wait().await;
        let ended = Instant::now();
        // Both end with the process, if it left no child behind.
        if let Some(reader) = self.stdout.take() {
            within("the end of stdout", reader)
                .await
                .expect("the reader of stdout");
        }
        let stderr = within("the end of stderr", &mut self.stderr)
            .await
            .expect("the reader of stderr");
        let mut lines = Vec::new();
        self.output
            .send_modify(|output| lines = std::mem::take(&mut output.lines));
        let finished = Finished::new(
            status,
            self.started,
            ended,
            lines,
            &stderr,
            self.secrets.clone(),
        );
        if self.protocol {
            finished.assert_protocol(self.torn);
        }
        finished
    }
}

/// A size that the system tells of a process, if that has not ended.
fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a size");
    Some(kib * 1024)
}

/// Keeps each line with the time it came.
async fn capture_lines(stdout: ChildStdout, output: Arc<watch::Sender<Output>>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut raw = Vec::new();
        let read = stdout
            .read_until(b'\n', &mut raw)
            .await
            .expect("a pipe can be read");
        if read == 0 {
            break;
        }
        let line = Line::new(&raw, Instant::now());
        output.send_modify(|output| output.lines.push(line));
    }
    output.send_modify(|output| output.ended = true);
}

async fn capture_bytes(mut stderr: ChildStderr) -> Vec<u8> {
    let mut bytes = Vec::new();
    stderr
        .read_to_end(&mut bytes)
        .await
        .expect("a pipe can be read");
    bytes
}
