//! A Kinesis that takes everything, in a process of its own: this program, started once more.
//!
//! It must not be what is measured, so it does no more than it has to: a thread a connection, bodies
//! counted as they are read and kept nowhere, answers made in advance. What it says of itself goes
//! over its stdout: first its port, and when its stdin ends, its [`Totals`].

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tempfile::NamedTempFile;

use crate::Result;
use crate::counter::Counter;
use crate::tls::{self, Version};

/// The first argument of the process.
pub(crate) const VERB: &str = "endpoint";

/// Bytes that are read at once: few enough to stay in the processor's cache.
const READ_BYTES: usize = 128 * 1024;

/// A head longer than this is not one of a client of Kinesis.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What a request takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Delay {
    /// From its last byte to the answer.
    pub(crate) latency: Duration,
    /// Beyond that, this many bytes take a second. 0: no time.
    pub(crate) bytes_per_second: u64,
}

impl Delay {
    pub(crate) fn of(&self, body_bytes: u64) -> Duration {
        let transfer = match self.bytes_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_micros(body_bytes * 1_000_000 / rate),
        };
        self.latency + transfer
    }
}

/// What a server got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// PutRecords requests.
    pub(crate) requests: u64,
    /// Those among them that came as CBOR.
    pub(crate) cbor_requests: u64,
    /// Records in them.
    pub(crate) records: u64,
    /// Bytes of their bodies.
    pub(crate) body_bytes: u64,
    /// When the first of them came.
    pub(crate) first: Duration,
}

/// A running server. It ends with this process, whatever happens.
pub(crate) struct Endpoint {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    port: u16,
    /// The certificate to trust, if it speaks TLS.
    certificate: Option<NamedTempFile>,
}

impl Endpoint {
    pub(crate) fn start(delay: Delay, tls: Option<Version>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(VERB)
            .arg(delay.latency.as_micros().to_string())
            .arg(delay.bytes_per_second.to_string());
        let mut certificate = None;
        if let Some(version) = tls {
            let file = NamedTempFile::new()?;
            command.arg(version.alpn()).arg(file.path());
            certificate = Some(file);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take();
        let mut stdout = BufReader::new(process.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        Ok(Self {
            process,
            stdin,
            stdout,
            port: line.trim().parse()?,
            certificate,
        })
    }

    pub(crate) fn url(&self) -> String {
        match &self.certificate {
            Some(_) => format!("https://{}:{}", tls::HOST, self.port),
            None => format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.port),
        }
    }

    /// The file with the certificate that a client has to trust.
    pub(crate) fn certificate(&self) -> Option<&Path> {
        self.certificate.as_ref().map(NamedTempFile::path)
    }

    /// Ends the server, and returns what it got.
    pub(crate) fn finish(mut self) -> Result<Totals> {
        drop(self.stdin.take());
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        self.process.wait()?;
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        match numbers[..] {
            [requests, cbor_requests, records, body_bytes, first] => Ok(Totals {
                requests,
                cbor_requests,
                records,
                body_bytes,
                first: Duration::from_nanos(first),
            }),
            _ => Err("the endpoint did not say what it got".into()),
        }
    }
}

/// The time of this machine, which both processes go by.
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[derive(Default)]
pub(crate) struct Tally {
    requests: AtomicU64,
    cbor_requests: AtomicU64,
    records: AtomicU64,
    body_bytes: AtomicU64,
    first: AtomicU64,
}

impl Tally {
    /// Notes when the first request came.
    pub(crate) fn begin(&self) {
        if self.first.load(Ordering::Relaxed) == 0 {
            let now = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
            // Only the first one counts.
            let _ = self
                .first
                .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Counts a request.
    pub(crate) fn add(&self, records: u64, body_bytes: u64, is_cbor: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.body_bytes.fetch_add(body_bytes, Ordering::Relaxed);
        self.cbor_requests
            .fetch_add(u64::from(is_cbor), Ordering::Relaxed);
    }
}

/// The server process.
pub(crate) fn serve(arguments: &[String]) -> Result<()> {
    let [latency_us, bytes_per_second, tls @ ..] = arguments else {
        return Err("two numbers expected".into());
    };
    let delay = Delay {
        latency: Duration::from_micros(latency_us.parse()?),
        bytes_per_second: bytes_per_second.parse()?,
    };
    let tally = Arc::new(Tally::default());
    let shared = Arc::clone(&tally);
    if let [alpn, certificate] = tls {
        let (alpn, certificate) = (alpn.clone(), PathBuf::from(certificate));
        thread::spawn(move || tls::serve(delay, shared, &alpn, &certificate));
    } else {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        println!("{}", listener.local_addr()?.port());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tally = Arc::clone(&shared);
                // A connection that breaks is for the client to notice.
                thread::spawn(move || Connection::new(stream, delay, &tally)?.serve());
            }
        });
    }
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
    println!(
        "{} {} {} {} {}",
        read(&tally.requests),
        read(&tally.cbor_requests),
        read(&tally.records),
        read(&tally.body_bytes),
        read(&tally.first)
    );
    Ok(())
}

struct Connection<'a> {
    stream: TcpStream,
    delay: Delay,
    tally: &'a Tally,
    buffer: Vec<u8>,
    answer: Answer,
}

impl<'a> Connection<'a> {
    fn new(stream: TcpStream, delay: Delay, tally: &'a Tally) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            delay,
            tally,
            buffer: vec![0; READ_BYTES],
            answer: Answer::default(),
        })
    }

    fn serve(mut self) -> io::Result<()> {
        loop {
            let Some((head, head_end, filled)) = self.read_head()? else {
                return Ok(());
            };
            if head.is_put {
                self.put_records(&head, head_end, filled)?;
            } else {
                self.other(&head, filled - head_end)?;
            }
        }
    }

    /// The head of the next request, where it ends in the buffer, and how much of the buffer is filled.
    fn read_head(&mut self) -> io::Result<Option<(Head, usize, usize)>> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Ok(None);
            }
            filled += read;
            let searched = &self.buffer[..filled.min(HEAD_BYTES_MAX)];
            if let Some(end) = memchr::memmem::find(searched, b"\r\n\r\n") {
                return Ok(Some((Head::parse(&self.buffer[..end]), end + 4, filled)));
            }
            if filled >= HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// Counts what comes, and says that it is stored.
    fn put_records(&mut self, head: &Head, head_end: usize, filled: usize) -> io::Result<()> {
        self.tally.begin();
        let mut counter = Counter::of("PartitionKey");
        let mut records = counter.count(&self.buffer[head_end..filled]);
        let mut left = head.body_bytes.saturating_sub(length(filled - head_end));
        while left > 0 {
            let read = self.stream.read(&mut self.buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            records += counter.count(&self.buffer[..read]);
            left = left.saturating_sub(length(read));
        }
        self.tally.add(records, head.body_bytes, head.is_cbor);
        let delay = self.delay.of(head.body_bytes);
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        self.stream
            .write_all(self.answer.put_records(records, head.is_cbor))
    }

    /// Everything but PutRecords.
    fn other(&mut self, head: &Head, body_read: usize) -> io::Result<()> {
        let left = head.body_bytes.saturating_sub(length(body_read));
        io::copy(&mut (&mut self.stream).take(left), &mut io::sink())?;
        let body = other(&head.operation);
        let head = response_head("application/x-amz-json-1.1", body.len());
        self.stream.write_all(format!("{head}{body}").as_bytes())
    }
}

/// The answer to everything but PutRecords.
pub(crate) fn other(operation: &str) -> String {
    match operation {
        "DescribeStreamSummary" => json!({"StreamDescriptionSummary": {
            "StreamName": "any",
            "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/any",
            "StreamStatus": "ACTIVE",
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": 1_795_372_724,
            "EnhancedMonitoring": [],
            "OpenShardCount": 1,
        }})
        .to_string(),
        "ListShards" => json!({"Shards": [{
            "ShardId": "shardId-000000000000",
            "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": u128::MAX.to_string()},
            "SequenceNumberRange": {"StartingSequenceNumber": "1"},
        }]})
        .to_string(),
        // CreateStream and whatever else has nothing to say.
        _ => String::new(),
    }
}

/// What matters of a request's head.
#[derive(Default)]
struct Head {
    operation: String,
    is_put: bool,
    is_cbor: bool,
    body_bytes: u64,
}

impl Head {
    fn parse(head: &[u8]) -> Self {
        let mut parsed = Self::default();
        for line in String::from_utf8_lossy(head).split("\r\n").skip(1) {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                parsed.body_bytes = value.parse().unwrap_or(0);
            } else if name.eq_ignore_ascii_case("content-type") {
                parsed.is_cbor = value.contains("cbor");
            } else if name.eq_ignore_ascii_case("x-amz-target") {
                parsed.operation = value.rsplit('.').next().unwrap_or("").to_owned();
                parsed.is_put = parsed.operation == "PutRecords";
            }
        }
        parsed
    }
}

/// The answer to the last PutRecords of a connection: the next one is mostly of the same length.
#[derive(Default)]
pub(crate) struct Answer {
    records: u64,
    is_cbor: bool,
    bytes: Vec<u8>,
}

const SEQUENCE_NUMBER: &str = "49590338271490256608559692538361571095921575989136588898";
const SHARD_ID: &str = "shardId-000000000000";

impl Answer {
    fn put_records(&mut self, records: u64, is_cbor: bool) -> &[u8] {
        if self.bytes.is_empty() || self.records != records || self.is_cbor != is_cbor {
            let body = Self::body(records, is_cbor);
            let content_type = Self::content_type(is_cbor);
            self.bytes = response_head(content_type, body.len()).into_bytes();
            self.bytes.extend_from_slice(&body);
            self.records = records;
            self.is_cbor = is_cbor;
        }
        &self.bytes
    }

    pub(crate) fn content_type(is_cbor: bool) -> &'static str {
        if is_cbor {
            "application/x-amz-cbor-1.1"
        } else {
            "application/x-amz-json-1.1"
        }
    }

    pub(crate) fn body(records: u64, is_cbor: bool) -> Vec<u8> {
        if is_cbor {
            cbor_body(records)
        } else {
            json_body(records)
        }
    }
}

fn json_body(records: u64) -> Vec<u8> {
    let entry = format!(r#"{{"SequenceNumber":"{SEQUENCE_NUMBER}","ShardId":"{SHARD_ID}"}}"#);
    let entries: Vec<_> = (0..records).map(|_| entry.as_str()).collect();
    format!(
        r#"{{"FailedRecordCount":0,"Records":[{}]}}"#,
        entries.join(",")
    )
    .into_bytes()
}

/// The same in CBOR ([RFC 8949](https://www.rfc-editor.org/rfc/rfc8949)): maps of two pairs, and a list
/// that ends where it ends.
fn cbor_body(records: u64) -> Vec<u8> {
    let mut body = vec![0xA2];
    cbor_text("FailedRecordCount", &mut body);
    body.push(0);
    cbor_text("Records", &mut body);
    body.push(0x9F);
    let mut entry = vec![0xA2];
    for text in ["SequenceNumber", SEQUENCE_NUMBER, "ShardId", SHARD_ID] {
        cbor_text(text, &mut entry);
    }
    for _ in 0..records {
        body.extend_from_slice(&entry);
    }
    body.push(0xFF);
    body
}

fn cbor_text(text: &str, out: &mut Vec<u8>) {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    if length < 24 {
        out.push(0x60 | length);
    } else {
        out.extend_from_slice(&[0x78, length]);
    }
    out.extend_from_slice(text.as_bytes());
}

fn response_head(content_type: &str, body_bytes: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nx-amzn-requestid: 00000000-0000-0000-0000-000000000000\r\ncontent-type: {content_type}\r\ncontent-length: {body_bytes}\r\n\r\n"
    )
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
