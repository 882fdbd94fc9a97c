//! One run of the connector: a block of input written again and again into its stdin, and what that took.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::json;

use crate::Result;
use crate::cases::{Case, Protocol};
use crate::counter::Counter;
use crate::endpoint::{Delay, Endpoint, now};
use crate::messages::{Block, catalog};

/// Between two looks at the memory. The kernel keeps the peak; only what comes behind the last look is missed.
const LOOK: Duration = Duration::from_millis(10);

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Records delivered.
    pub(crate) records: u64,
    /// Bytes of stdin.
    pub(crate) input_bytes: u64,
    /// From the first PutRecords request to the end of the process.
    pub(crate) seconds: f64,
    /// CPU of the connector alone, from its start to its end.
    pub(crate) cpu: Cpu,
    /// The most memory it had resident.
    pub(crate) peak_bytes: u64,
    /// PutRecords requests.
    pub(crate) requests: u64,
    /// Bytes of their bodies.
    pub(crate) body_bytes: u64,
}

/// Seconds of CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    pub(crate) fn seconds(self) -> f64 {
        self.user + self.system
    }
}

/// Runs a case, and makes sure that everything has arrived and every state came out.
pub(crate) fn run(binary: &Path, case: &Case, block: &Block, bytes_per_second: u64) -> Result<Run> {
    let blocks = (case.records / block.records).max(1);
    let delay = Delay {
        latency: case.latency,
        bytes_per_second,
    };
    let endpoint = Endpoint::start(delay, case.tls)?;
    let folder = tempfile::tempdir()?;
    let (config_path, catalog_path) = (
        folder.path().join("config.json"),
        folder.path().join("catalog.json"),
    );
    let mut config = json!({
        "endpoint": endpoint.url(),
        "region": "us-east-1",
        "accessKey": "AKIAIOSFODNN7EXAMPLE",
        "privateKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "bufferSize": case.buffer_size,
        "requestFormat": case.protocol.setting(),
    });
    if let Some((key, value)) = case.setting {
        config[key] = json!(value);
    }
    fs::write(&config_path, config.to_string())?;
    fs::write(&catalog_path, catalog(case.streams))?;
    let mut command = Command::new(binary);
    command
        .arg("write")
        .arg("--config")
        .arg(&config_path)
        .arg("--catalog")
        .arg(&catalog_path);
    if let Some(certificate) = endpoint.certificate() {
        command.env("AWS_CA_BUNDLE", certificate);
    }
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdin = process.stdin.take().ok_or("no stdin")?;
    let stdout = process.stdout.take().ok_or("no stdout")?;
    let (output, peak_bytes) = thread::scope(|threads| {
        threads.spawn(|| feed(stdin, block, blocks));
        let output = threads.spawn(|| read(stdout));
        let mut peak_bytes = 0;
        while !output.is_finished() {
            peak_bytes = peak_bytes.max(peak_of(&process).unwrap_or(0));
            thread::sleep(LOOK);
        }
        (output.join(), peak_bytes)
    });
    let output = output.map_err(|_| "the reader has died")??;
    let cpu = cpu_of(&process)?;
    let status = process.wait()?;
    let totals = endpoint.finish()?;

    let expected = length(block.records * blocks);
    let expected_states = length(block.states * blocks);
    if !status.success() {
        return Err(format!("{}: the connector failed: {}", case.name, output.last).into());
    }
    let all_arrived = totals.records == expected || case.aggregates();
    if !all_arrived || output.states != expected_states {
        return Err(format!(
            "{}: {} of {expected} records arrived, and {} of {expected_states} states came out",
            case.name, totals.records, output.states
        )
        .into());
    }
    let expected_cbor = match case.protocol {
        Protocol::Json => 0,
        Protocol::Cbor => totals.requests,
    };
    if totals.cbor_requests != expected_cbor {
        return Err(format!(
            "{}: {} of {} requests came as CBOR",
            case.name, totals.cbor_requests, totals.requests
        )
        .into());
    }
    Ok(Run {
        records: expected,
        input_bytes: length(block.bytes.len() * blocks),
        seconds: output.ended.saturating_sub(totals.first).as_secs_f64(),
        cpu,
        peak_bytes,
        requests: totals.requests,
        body_bytes: totals.body_bytes,
    })
}

/// A writer that ends early says enough by what did not arrive.
fn feed(mut stdin: ChildStdin, block: &Block, blocks: usize) {
    for _ in 0..blocks {
        if stdin.write_all(&block.bytes).is_err() {
            return;
        }
    }
}

/// What a process has said.
struct Output {
    states: u64,
    /// The last line, which is the one that says what went wrong.
    last: String,
    ended: Duration,
}

fn read(mut stdout: ChildStdout) -> Result<Output> {
    let mut counter = Counter::of(r#""type":"STATE""#);
    let mut states = 0;
    let mut buffer = vec![0; 64 * 1024];
    let mut tail = Vec::new();
    loop {
        let read = stdout.read(&mut buffer)?;
        if read == 0 {
            let ended = now();
            let tail = String::from_utf8_lossy(&tail);
            let last = tail.trim_end().rsplit('\n').next().unwrap_or("").to_owned();
            return Ok(Output {
                states,
                last,
                ended,
            });
        }
        states += counter.count(&buffer[..read]);
        if tail.len() > buffer.len() {
            tail.clear();
        }
        tail.extend_from_slice(&buffer[..read]);
    }
}

/// Waits until the process has ended, and reads what it took before the kernel forgets it.
fn cpu_of(process: &Child) -> Result<Cpu> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(process)), options)?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
    // The name of the program is in brackets and may have anything in it. Behind it, user and system time are
    // fields 14 and 15 of proc_pid_stat(5), of which this is the third.
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks_a_second = f64::from(u32::try_from(rustix::param::clock_ticks_per_second())?);
    let seconds = |field: usize| -> Result<f64> {
        let ticks: u32 = fields.get(field - 3).ok_or("a short stat")?.parse()?;
        Ok(f64::from(ticks) / ticks_a_second)
    };
    Ok(Cpu {
        user: seconds(14)?,
        system: seconds(15)?,
    })
}

/// The most memory a process had resident so far. None when it has none any more.
fn peak_of(process: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

/// What `spec` takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) seconds: f64,
    pub(crate) peak_bytes: u64,
}

/// Runs `spec`: once to the end for its time, and once into a pipe that is full for its memory, so that it
/// stands still before it ends.
pub(crate) fn spec(binary: &Path) -> Result<Spec> {
    const PIPE_BYTES: usize = 64 * 1024;
    const STANDS_STILL: Duration = Duration::from_millis(50);

    let started = Instant::now();
    let output = Command::new(binary).arg("spec").output()?;
    let seconds = started.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err("spec failed".into());
    }

    let (mut reader, mut writer) = std::io::pipe()?;
    writer.write_all(&vec![b'\n'; PIPE_BYTES])?;
    let mut process = Command::new(binary).arg("spec").stdout(writer).spawn()?;
    thread::sleep(STANDS_STILL);
    let peak_bytes = peak_of(&process).ok_or("spec did not stand still")?;
    std::io::copy(&mut reader, &mut std::io::sink())?;
    process.wait()?;
    Ok(Spec {
        seconds,
        peak_bytes,
    })
}

pub(crate) fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
