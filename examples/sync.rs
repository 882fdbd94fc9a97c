//! A whole sync into an embedded Kinesis, to watch: no account, no Docker.
//!
//! Starts a Kinesis server in this process, runs the real program against it (`spec`, `check`, `write`),
//! reads the streams back and shows what is in them.
//!
//! ```text
//! cargo run --example sync                          # the sample messages
//! cargo run --example sync -- my-messages.jsonl     # your own
//! ```

#![expect(
    clippy::print_stdout,
    reason = "an example talks to the person who runs it"
)]

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use destination_kinesis::catalog::Catalog;
use destination_kinesis::client::KinesisClientPool;
use destination_kinesis::config::KinesisConfig;
use destination_kinesis::stream::KinesisStream;
use ferrokinesis::store::StoreOptions;
use serde_json::{Value, json};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error>;

/// Records that are shown of each stream.
const SHOWN: usize = 2;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration_tests");
    let own_messages = env::args_os().nth(1).map(PathBuf::from);
    let program = build_program()?;
    let endpoint = start_kinesis().await?;
    let directory = tempfile::tempdir()?;

    // The same keys as in a form that was saved for the Java connector.
    let config = json!({
        "endpoint": endpoint, "region": "us-east-1", "shardCount": 2,
        "accessKey": "example", "privateKey": "example", "bufferSize": 100,
    });
    let config_file = directory.path().join("config.json");
    fs::write(&config_file, config.to_string())?;
    let (messages_file, catalog_file) = match own_messages {
        Some(messages) => {
            let catalog = directory.path().join("catalog.json");
            fs::write(&catalog, catalog_of(&messages)?.to_string())?;
            (messages, catalog)
        }
        None => (
            samples.join("messages.jsonl"),
            samples.join("configured_catalog.json"),
        ),
    };
    println!("An embedded Kinesis listens on {endpoint}.\n");

    let spec = run(Command::new(&program).arg("spec"))?;
    let spec: Value = serde_json::from_slice(&spec.stdout)?;
    let keys = spec["spec"]["connectionSpecification"]["properties"].as_object();
    println!("$ destination-kinesis spec");
    println!(
        "  settings: {}\n",
        keys.map(|keys| keys.keys().cloned().collect::<Vec<_>>().join(", "))
            .unwrap_or_default()
    );

    println!("$ destination-kinesis check --config config.json");
    let check = run(Command::new(&program)
        .arg("check")
        .arg("--config")
        .arg(&config_file))?;
    show_messages(&check);

    println!(
        "$ destination-kinesis write --config config.json --catalog catalog.json < {}",
        messages_file.display()
    );
    let write = run(Command::new(&program)
        .arg("write")
        .arg("--config")
        .arg(&config_file)
        .arg("--catalog")
        .arg(&catalog_file)
        .stdin(File::open(&messages_file)?))?;
    show_messages(&write);

    println!("What is in Kinesis now:");
    let config = KinesisConfig::from_json(config.to_string().as_bytes())?;
    let catalog = Catalog::from_json(&fs::read(&catalog_file)?)?;
    let mut pool = KinesisClientPool::new();
    for name in catalog.stream_names() {
        let stream = KinesisStream::new(name, pool.lend(config.connection()).await?, &config);
        let records = stream.get_records().await?;
        println!("  {name}: {} records", records.len());
        for record in records.iter().take(SHOWN) {
            println!("    {} {}", record.id(), shorten(record.data()));
        }
    }
    Ok(())
}

/// Builds the program itself, in this example's own profile, and returns where it is.
fn build_program() -> Result<PathBuf, Failure> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--quiet",
        "--bin",
        "destination-kinesis",
    ]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    if !build.status()?.success() {
        return Err("the program could not be built".into());
    }
    // This example is at target/<profile>/examples/sync.
    let this = env::current_exe()?;
    let profile = this.ancestors().nth(2).ok_or("no target directory")?;
    Ok(profile.join("destination-kinesis"))
}

/// Starts a Kinesis server that lives as long as this process, and returns its URL.
async fn start_kinesis() -> Result<String, Failure> {
    let (app, _store) = ferrokinesis::create_app(StoreOptions {
        create_stream_ms: 50,
        delete_stream_ms: 50,
        shard_limit: 1000,
        ..StoreOptions::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    tokio::spawn(ferrokinesis::serve_plain_http(
        listener,
        app,
        std::future::pending(),
    ));
    Ok(endpoint)
}

/// Runs the program to its end. The server runs on other threads meanwhile.
fn run(command: &mut Command) -> Result<Output, Failure> {
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stderr(Stdio::inherit());
    let output = tokio::task::block_in_place(|| command.output())?;
    if !output.status.success() {
        show_messages(&output);
        return Err(format!("the program ended with {}", output.status).into());
    }
    Ok(output)
}

/// Shows what the program has said.
fn show_messages(output: &Output) {
    for line in output.stdout.split(|byte| *byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        match message["type"].as_str() {
            Some("LOG") => println!(
                "  {:<5} {}",
                text(&message["log"]["level"]),
                text(&message["log"]["message"])
            ),
            Some("CONNECTION_STATUS") => println!(
                "  {} {}",
                text(&message["connectionStatus"]["status"]),
                text(&message["connectionStatus"]["message"])
            ),
            Some("STATE") => println!("  STATE {}", shorten(&message["state"].to_string())),
            Some("TRACE") => println!("  ERROR {}", text(&message["trace"]["error"]["message"])),
            _ => println!("  {}", shorten(&message.to_string())),
        }
    }
    println!();
}

/// A catalog of all streams that the file has records of.
fn catalog_of(messages: &Path) -> Result<Value, Failure> {
    let mut streams = BTreeMap::new();
    for line in BufReader::new(File::open(messages)?).lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else {
            continue;
        };
        let record = &message["record"];
        if message["type"] == "RECORD" {
            let stream = json!({"name": record["stream"], "namespace": record["namespace"], "json_schema": {}});
            streams.insert(stream.to_string(), stream);
        }
    }
    let streams: Vec<_> = streams
        .into_values()
        .map(|stream| json!({"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "append"}))
        .collect();
    Ok(json!({ "streams": streams }))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 140;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    format!("{}…", text.chars().take(CHARS_MAX).collect::<String>())
}
