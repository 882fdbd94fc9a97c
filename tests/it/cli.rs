//! The command line, `spec`, and what every run begins with: files and environment.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::support::messages::{CANARY, catalog, record, state_stream, stream};
use crate::support::program::{Check, Program, Stdin, Write, connection};
use crate::support::server::Kinesis;

/// A file in a directory of its own, and its path.
fn file(text: &str) -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file.json");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn spec_is_one_line_in_both_spellings_and_equals_the_snapshot() {
    for verb in ["spec", "--spec"] {
        let run = Program::args([verb]).run().await;
        run.assert_success();
        let snapshot = include_str!("../snapshots/spec.json");
        assert_eq!(run.stdout(), snapshot.trim_end());
        assert_eq!(run.lines.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_in_well_under_100_ms() {
    let mut fastest = Duration::MAX;
    for _ in 0..10 {
        fastest = fastest.min(Program::args(["spec"]).run().await.elapsed);
    }
    // The best of ten, because other tests want the processor too.
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_and_options_have_two_spellings() {
    let kinesis = Kinesis::start().await;
    let (_dir, config) = file(&connection(&kinesis).to_string());
    let (_dir, streams) = file(&catalog([stream("users")]));
    let (config, streams) = (format!("--config={config}"), format!("--catalog={streams}"));
    for verb in ["check", "--check"] {
        let run = Program::args([verb, &config]).run().await;
        run.assert_connected();
    }
    for verb in ["write", "--write"] {
        let run = Program::args([&streams, verb, &config]).run().await;
        // Only the flag may come anywhere.
        if verb == "write" {
            assert_eq!(run.exit_code, Some(2), "{run}");
            let run = Program::args([verb, &streams, &config]).run().await;
            run.assert_success();
        } else {
            run.assert_success();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_ignores_a_catalog() {
    let kinesis = Kinesis::start().await;
    let check = Check::against(&kinesis).arg("--catalog=/no/such/file");
    check.run().await.assert_connected();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_one_trace_and_exit_code_2() {
    for (args, part) in [
        (&[][..], "Usage: destination-kinesis"),
        (&["read"], "'read'"),
        (&["check"], "--config <FILE>"),
        (&["check", "--config"], "--config <FILE>"),
        (&["write", "--config", "c.json"], "--catalog <FILE>"),
        (&["write", "--catalog", "k.json"], "--config <FILE>"),
        (&["spec", "--config", "c.json"], "'--config'"),
        (
            &["check", "--config", "c.json", "--state", "s"],
            "'--state'",
        ),
        (&["write", "--config=c", "--catalog=k", "more"], "'more'"),
        (&["--check", "--write", "--config", "c.json"], "'--write'"),
        (&["check", "--config", "a", "--config", "b"], "--config"),
    ] {
        let run = Program::args(args.iter().copied()).run().await;
        assert_eq!(run.exit_code, Some(2), "{args:?}: {run}");
        assert_eq!(run.lines.len(), 1, "{args:?}: {run}");
        let error = &run.trace_error()["error"];
        assert_eq!(error["failure_type"], "config_error", "{run}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part), "{args:?}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn help_and_version_are_plain_text() {
    for args in [&["--help"][..], &["-h"], &["write", "--help"]] {
        let run = Program::args(args.iter().copied())
            .plain_output()
            .run()
            .await;
        assert_eq!((run.exit_code, run.stderr.as_str()), (Some(0), ""));
        let text = run.stdout();
        assert!(text.contains("Usage: destination-kinesis"), "{text}");
        let all = [
            "destination-kinesis spec",
            "destination-kinesis check --config config.json",
            "destination-kinesis write --config config.json --catalog catalog.json < messages.jsonl",
            "LOG_LEVEL",
            "Exit codes",
        ];
        if args == ["--help"] {
            assert!(all.iter().all(|part| text.contains(part)), "{text}");
        }
    }
    for flag in ["--version", "-V"] {
        let run = Program::args([flag]).plain_output().run().await;
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(run.stdout(), format!("destination-kinesis {version}"));
        assert_eq!(run.exit_code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_named() {
    for args in [
        &["check", "--config", "missing.json"][..],
        &["check", "--config", "."],
        &["write", "--config", "missing.json", "--catalog", "x.json"],
    ] {
        let run = Program::args(args.iter().copied()).run().await;
        run.assert_failed("config_error", &format!("configuration file {}", args[2]));
        assert_eq!(run.lines.len(), 1, "{run}");
    }
    let (_dir, config) = file(r#"{"region":"us-east-1"}"#);
    let run = Program::args(["write", "--config", &config, "--catalog", "missing.json"]);
    let run = run.run().await;
    run.assert_failed("config_error", "catalog file missing.json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_not_a_json_object_is_told_without_its_content() {
    for text in [
        "",
        "nonsense",
        r#"{"accessKey":"canary-c0ffee-7d1f""#,
        "[]",
        "null",
        r#""canary-c0ffee-7d1f""#,
        "{} canary-c0ffee-7d1f",
    ] {
        let run = Program::args(["check"]).config_text(text).run().await;
        run.assert_not_connected("The configuration");
        let write = Program::args(["write"]).config_text(text);
        let run = write.catalog(catalog([])).run().await;
        run.assert_failed("config_error", "The configuration");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_is_none_is_a_config_error_and_nothing_is_sent() {
    let kinesis = Kinesis::start().await;
    for text in ["", "nonsense", "[]", "{}", r#"{"streams":[{"stream":{}}]}"#] {
        let run = Write::to(&kinesis).catalog(text).run().await;
        run.assert_failed("config_error", "The catalog");
    }
    assert!(kinesis.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_standard_input_is_an_empty_one() {
    let kinesis = Kinesis::start().await;
    for stdin in [Stdin::Null, Stdin::Closed] {
        let write = Write::to(&kinesis).catalog(catalog([stream("users")]));
        let run = write.stdin(stdin).run().await;
        run.assert_success();
        assert!(run.states().is_empty());
        let check = Check::against(&kinesis).stdin(stdin).run().await;
        check.assert_connected();
    }
    assert!(kinesis.streams().await.contains(&"_users".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_write_says_what_it_waits_for() {
    let kinesis = Kinesis::start().await;
    for (stdin, told) in [(Stdin::Terminal, true), (Stdin::Null, false)] {
        let write = Write::to(&kinesis).catalog(catalog([stream("users")]));
        let run = write.stdin(stdin).run().await;
        run.assert_success();
        let logs = run.logs("INFO");
        let greeting = "Waiting for Airbyte messages on standard input";
        assert_eq!(
            logs.iter().any(|text| text.starts_with(greeting)),
            told,
            "{run}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_level_is_read_in_any_case() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_users", 1).await;
    for (level, shown) in [
        ("error", [false, false]),
        ("Warn", [false, false]),
        ("INFO", [true, false]),
        ("nonsense", [true, false]),
        ("debug", [true, true]),
        ("TRACE", [true, true]),
    ] {
        // A message for somebody else is worth a DEBUG line.
        let write = Write::to(&kinesis).catalog(catalog([stream("users")]));
        let write = write.input([r#"{"type":"CONTROL","control":{}}"#]);
        let run = write.env("LOG_LEVEL", level).run().await;
        run.assert_success();
        let logged = ["INFO", "DEBUG"].map(|level| !run.logs(level).is_empty());
        assert_eq!(logged, shown, "{level}: {run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_may_ask_for_and_is_not_supported_is_refused_at_once() {
    let kinesis = Kinesis::start().await;
    for (name, value) in [
        ("DATA_CHANNEL_MEDIUM", "SOCKET"),
        ("DATA_CHANNEL_FORMAT", "PROTOBUF"),
        ("USE_FILE_TRANSFER", "true"),
    ] {
        let write = Write::to(&kinesis).catalog(catalog([stream("users")]));
        let mut running = write.env(name, value).spawn().await;
        // Standard input is still open.
        running.ended().await;
        let run = running.finish().await;
        run.assert_failed("config_error", name);
    }
    assert!(kinesis.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_that_the_platform_sets_is_fine() {
    let kinesis = Kinesis::start().await;
    let mut write = Write::to(&kinesis).catalog(catalog([stream("users")]));
    for (name, value) in [
        ("DATA_CHANNEL_MEDIUM", "STDIO"),
        ("DATA_CHANNEL_FORMAT", "JSONL"),
        ("USE_FILE_TRANSFER", "false"),
        (
            "WORKER_CONNECTOR_IMAGE",
            "airbyte/destination-kinesis:0.2.0",
        ),
        ("WORKER_JOB_ID", "1"),
        ("WORKER_JOB_ATTEMPT", "0"),
        ("RUST_LOG", "trace"),
        ("RUST_BACKTRACE", "full"),
    ] {
        write = write.env(name, value);
    }
    let input = [
        record("users", json!({ "secret": CANARY })),
        state_stream("users", json!({})),
    ];
    let run = write.input(input).run().await;
    run.assert_success();
    assert_eq!(run.states().len(), 1);
}
