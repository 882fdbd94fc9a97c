//! Every record is stored, every state is earned, and nothing waits for more input.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{data_in, kinesis_with, lines, ready, write_to};
use crate::support::faults::{Fault, Gate};
use crate::support::messages::{numbered, record, records, state_global, state_stream};
use crate::support::server::Kinesis;
use crate::support::verdict::{
    assert_all_states, assert_earned, assert_exactly_stored, assert_record_counts,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_small_sync_stores_every_record_and_sends_every_state_back() {
    let kinesis = Kinesis::start().await;
    let mut input = records("users", 10);
    input.push(state_stream("users", json!({ "cursor": 10 })));
    let write = write_to(&kinesis, &["users"]).input(input.clone());
    let run = write.run().await;
    run.assert_success();
    let expected: Vec<_> = (0..10).map(numbered).collect();
    assert_exactly_stored(&kinesis, "_users", &expected).await;
    assert_all_states(&input, &run);
    assert_record_counts(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_records_over_five_streams_arrive_once_and_no_state_is_early() {
    const RECORDS: usize = 100_000;
    const STREAMS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let kinesis = Kinesis::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |call| match call.nth_for_stream {
        1..=3 => Fault::hold_answer(&held),
        _ => Fault::pass(),
    });
    let mut input = Vec::with_capacity(RECORDS + RECORDS / 1000);
    for n in 0..RECORDS {
        input.push(record(STREAMS[n % 5], numbered(n)).line());
        if n % 1000 == 999 {
            let state = state_stream(STREAMS[n / 1000 % 5], json!({ "cursor": n }));
            input.push(state.id(i64::try_from(n).unwrap()).line());
        }
    }
    let write = write_to(&kinesis, &STREAMS).config(json!({ "bufferSize": 500 }));
    let write = write.deadline(Duration::from_secs(100));
    let mut running = write.spawn().await;
    let _ = running.feed(input.clone());
    gate.waiting(5).await;
    assert_eq!(running.states_so_far(), 0, "nothing is acknowledged yet");
    gate.open();
    let run = running.finish().await;
    run.assert_success();
    for (at, name) in STREAMS.iter().enumerate() {
        let expected: Vec<_> = (at..RECORDS).step_by(5).map(numbered).collect();
        assert_exactly_stored(&kinesis, &format!("_{name}"), &expected).await;
    }
    assert_all_states(&input, &run);
    assert_record_counts(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
    assert!(kinesis.max_in_flight() > 1, "several requests at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_silent_open_stdin_records_are_stored_and_states_out_within_two_seconds() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut running = ready(write_to(&kinesis, &["users"])).await;
    for n in 1..=3 {
        let sent = Instant::now();
        running.send(record("users", numbered(n))).await;
        running.send(state_stream("users", json!({ "n": n }))).await;
        let state = running.next_state().await;
        let took = state.at.duration_since(sent);
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(kinesis.stored_count("_users"), n);
    }
    running.finish().await.assert_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_state_do_not_wait_either() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut running = ready(write_to(&kinesis, &["users"])).await;
    running.send(record("users", "{}")).await;
    kinesis.wait_for_stored("_users", 1).await;
    running.finish().await.assert_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_pauses_holds_back_nothing_before_it() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut running = ready(write_to(&kinesis, &["users"])).await;
    let last = record("users", r#"{"name":"Zoë"}"#).line();
    for at in [1, 10, last.find('ë').unwrap() + 1, last.len()] {
        running.send(record("users", numbered(at))).await;
        running.send(state_stream("users", at)).await;
        running.send_raw(&last.as_bytes()[..at]).await;
        // Nothing but the first bytes of the next line has come since.
        running.next_state().await;
        running.send_raw(&last.as_bytes()[at..]).await;
        running.send("").await;
    }
    running.finish().await.assert_success();
    assert_eq!(kinesis.stored_count("_users"), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_20_mb_is_read() {
    let kinesis = kinesis_with(&["_users"]).await;
    let large = "x".repeat(20 << 20);
    let input = lines([
        record("users", "{}").with("meta", format!("{large:?}")),
        state_stream("users", format!("{large:?}")),
    ]);
    let run = write_to(&kinesis, &["users"])
        .input(input.clone())
        .run()
        .await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert_eq!(kinesis.stored_count("_users"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_at_most_buffer_size_records() {
    let kinesis = kinesis_with(&["_users"]).await;
    let write = write_to(&kinesis, &["users"]).config(json!({ "bufferSize": 7 }));
    let run = write.input(records("users", 100)).run().await;
    run.assert_success();
    let puts = kinesis.calls_of("PutRecords");
    assert!(puts.iter().all(|put| put.records <= 7));
    assert!(puts.iter().any(|put| put.records == 7));
    assert_eq!(kinesis.stored_count("_users"), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_at_most_2_mib() {
    let kinesis = kinesis_with(&["_users"]).await;
    let data = format!(r#"{{"x":"{}"}}"#, "x".repeat(900_000));
    let write = write_to(&kinesis, &["users"]).config(json!({ "bufferSize": 500 }));
    let input = vec![record("users", &data); 12];
    let run = write.input(input).run().await;
    run.assert_success();
    let puts = kinesis.calls_of("PutRecords");
    assert!(
        puts.iter().all(|put| put.records <= 2),
        "2 MiB are 2 records"
    );
    assert_eq!(data_in(&kinesis, "_users").await, vec![data; 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_stuck_does_not_stop_the_others() {
    let kinesis = kinesis_with(&["_slow", "_fast"]).await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |call| match call.stream {
        "_slow" => Fault::hold(&held),
        _ => Fault::pass(),
    });
    let mut running = write_to(&kinesis, &["slow", "fast"]).spawn().await;
    for message in records("slow", 1000)
        .into_iter()
        .chain(records("fast", 1000))
    {
        running.send(message).await;
    }
    kinesis.wait_for_stored("_fast", 1000).await;
    assert_eq!(kinesis.stored_count("_slow"), 0);
    gate.open();
    running.finish().await.assert_success();
    assert_eq!(kinesis.stored_count("_slow"), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_stops_the_reading_of_stdin() {
    const RECORDS: usize = 4000;
    let kinesis = kinesis_with(&["_users"]).await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |_| Fault::hold(&held));
    let write = write_to(&kinesis, &["users"]).config(json!({ "bufferSize": 500 }));
    let mut running = ready(write).await;
    let data = format!(r#"{{"k":"{}"}}"#, "x".repeat(40_000));
    let line = record("users", data).line();
    let total = RECORDS * line.len();
    let mut taken = running.feed(std::iter::repeat_n(line, RECORDS));
    // It takes what it has room for, and then no more.
    while tokio::time::timeout(Duration::from_secs(1), taken.changed())
        .await
        .is_ok_and(|changed| changed.is_ok())
    {}
    let held_back = total - *taken.borrow();
    assert!(held_back > total / 2, "{held_back} of {total} bytes");
    let rss = running.peak_rss_bytes();
    assert!(rss < 200 << 20, "{rss} bytes");
    running.kill();
    running.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_sync_tells_how_far_it_is_and_at_its_end_what_became_of_each_stream() {
    let kinesis = kinesis_with(&["_users", "_items"]).await;
    let mut running = write_to(&kinesis, &["users", "items"]).spawn().await;
    running.send(record("users", "{}")).await;
    running
        .wait_for_message(|line| line.logs("INFO", "Stored 1 records"))
        .await;
    let run = running.finish().await;
    run.assert_success();
    for summary in [
        r#"Stream "_users": 1 records"#,
        r#"Stream "_items": 0 records"#,
    ] {
        let logs = run.logs("INFO").into_iter();
        assert_eq!(logs.filter(|log| log.contains(summary)).count(), 1, "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_is_gone_within_a_second_after_its_last_word() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut input = lines(records("users", 100));
    input.push(state_global("null", []).line());
    let run = write_to(&kinesis, &["users"]).input(input).run().await;
    run.assert_success();
    assert!(run.lingered < Duration::from_secs(1), "{:?}", run.lingered);

    let mut running = ready(write_to(&kinesis, &["users"])).await;
    running.send(record("nobody", "{}")).await;
    // Standard input stays open.
    running.ended().await;
    let run = running.finish().await;
    assert_eq!(run.exit_code, Some(1));
    assert!(run.lingered < Duration::from_secs(1), "{:?}", run.lingered);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_tell_what_became_of_each_stream_and_of_all() {
    let kinesis = kinesis_with(&["_users", "_orders"]).await;
    kinesis.on("PutRecords", |call| {
        match (call.stream, call.nth_for_stream) {
            ("_users", 1) => Fault::throttle(0..10),
            ("_orders", 1) => Fault::lost_answer(),
            _ => Fault::pass(),
        }
    });
    let mut input = records("users", 800);
    input.extend(records("orders", 7));
    let run = write_to(&kinesis, &["users", "orders"])
        .input(input)
        .run()
        .await;
    run.assert_success();
    let lines = run.logs("INFO");
    let line = |start: &str| {
        let found = lines.iter().find(|line| line.starts_with(start));
        *found.unwrap_or_else(|| panic!("no line {start}: {run}"))
    };
    let users = line("Stream \"_users\": 800 records and ");
    let expected = "10 records refused by busy shards (before the shards were known: 10); 10 records sent again";
    assert!(users.contains(expected), "{users}");
    assert!(users.contains("spent waiting for shards."), "{users}");
    let orders = line("Stream \"_orders\": 7 records");
    let expected = "stored in 2 requests of 7.0 Kinesis records on average; 0 records refused by busy shards; 7 records sent \
                    again, 7 may be there twice";
    assert!(orders.contains(expected), "{orders}");
    let sync = line("Sync: 807 records");
    assert!(
        sync.contains("10 records refused by busy shards, 17 sent again, 7 may be there twice."),
        "{sync}"
    );
}
