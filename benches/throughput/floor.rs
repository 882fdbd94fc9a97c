//! What nobody can save: the floor that the connector is compared with.
//!
//! One thread parses one line again and again to a struct that borrows, writes the envelope of its data, and hashes
//! the envelope, as a signature has to. The floor shares no code with the connector and stays as it is,
//! however fast the connector gets: libraries only, no trick. It reads nothing, sends nothing, and makes no id.
//! Where the sizes are mixed, a few hundred lines take the place of the one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::Result;
use crate::connector::length;
use crate::float;
use crate::messages::{Block, Size};

/// How long it is measured.
const TIME: Duration = Duration::from_millis(700);

/// Records that are hashed as one.
const BATCH: usize = 500;

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    record: Option<Record<'a>>,
}

#[derive(Deserialize)]
struct Record<'a> {
    namespace: Option<&'a str>,
    stream: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "_airbyte_ab_id")]
    id: &'a str,
    #[serde(rename = "_airbyte_data")]
    data: &'a str,
    #[serde(rename = "_airbyte_emitted_at")]
    emitted_at: f64,
}

const ID: &str = "c0c5e7d4-6c3c-4d2b-9c8b-0a2f7b7f8f5e";
const EMITTED_AT: f64 = 1_795_372_724.066;

/// Seconds of CPU that a record of this input takes at the least.
pub(crate) fn seconds_a_record(block: &Block, size: Size) -> Result<f64> {
    let mut lines = record_lines(block);
    match size {
        Size::Bytes(_) | Size::Columns(_) => lines = vec![lines[0]; BATCH],
        Size::Mixed => lines.truncate(BATCH),
    }
    let mut envelope = Vec::new();
    let mut records = 0;
    let before = thread_cpu()?;
    let started = Instant::now();
    while started.elapsed() < TIME {
        let mut hash = Sha256::new();
        for line in &lines {
            envelope.clear();
            write_envelope(line, &mut envelope)?;
            hash.update(&envelope);
        }
        black_box(hash.finalize());
        records += lines.len();
    }
    Ok((thread_cpu()? - before).as_secs_f64() / float(length(records)))
}

/// What this thread has had of the CPU so far: others may want it as well.
fn thread_cpu() -> Result<Duration> {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Ok(Duration::new(
        time.tv_sec.try_into()?,
        time.tv_nsec.try_into()?,
    ))
}

/// The lines of a block that are records.
pub(crate) fn record_lines(block: &Block) -> Vec<&[u8]> {
    block
        .bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| line.starts_with(br#"{"type":"RECORD""#))
        .collect()
}

/// From a record's line to the record on Kinesis, by the library.
pub(crate) fn write_envelope(line: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let message: Message<'_> = serde_json::from_slice(line)?;
    let record = message.record.ok_or("no record")?;
    black_box((message.kind, record.namespace, record.stream));
    let envelope = Envelope {
        id: ID,
        data: record.data.get(),
        emitted_at: EMITTED_AT,
    };
    Ok(serde_json::to_writer(out, &envelope)?)
}
