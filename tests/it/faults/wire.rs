//! Connections that break, stand still, or are slow.

use std::time::Duration;

use destination_kinesis::limits::{TLS_CLIENTS, UNSENT_BYTES_MAX};
use serde_json::json;

use super::drill::{Layout, Phase, RECORDS, drill};
use crate::support::faults::{Cut, Fault, Gate, Hangup};
use crate::support::finished::Line;
use crate::support::messages::{Message, catalog, numbered, record, records, state_stream, stream};
use crate::support::program::{Program, Running, Write};
use crate::support::server::Kinesis;
use crate::support::tls::Tls;
use crate::support::verdict::{
    assert_all_states, assert_earned, assert_exactly_stored, assert_stored_at_least_once,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_lost_goes_again() {
    drill(|strike| {
        if strike.nth == 1 {
            Fault::lost_request()
        } else {
            Fault::reset_request()
        }
    })
    .twice()
    .stores_all_once()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_whose_answer_was_lost_go_again_with_their_ids() {
    drill(|_| Fault::lost_answer()).stores_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_whose_answer_was_torn_off_by_a_reset_go_again_with_their_ids() {
    drill(|_| Fault::reset_answer()).twice().stores_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_which_half_an_answer_came_go_again_with_their_ids() {
    drill(|strike| {
        Fault::pass().halved(if strike.nth == 1 {
            Hangup::Close
        } else {
            Hangup::Reset
        })
    })
    .twice()
    .stores_all()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_throttled_in_an_answer_that_was_lost_are_stored_in_the_end() {
    drill(|strike| Fault::throttle(strike.marked()).halved(Hangup::Close))
        .twice()
        .stores_all()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_waited_for() {
    drill(|_| Fault::pass().answered_after(Duration::from_millis(700)))
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_byte_by_byte_is_read_to_its_end() {
    drill(|_| Fault::pass().trickled(Duration::from_micros(100)))
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_closed_after_each_answer_are_made_anew() {
    drill(|strike| match strike.nth % 2 {
        0 => Fault::pass().announcing_close(),
        _ => Fault::pass().then_closed(),
    })
    .for_good()
    .stores_all_once()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_went_stale_is_made_anew() {
    drill(|_| Fault::pass().then_stale())
        .for_good()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_for_good_ends_the_sync_when_its_time_is_up() {
    drill(|strike| {
        if strike.nth % 2 == 0 {
            Fault::reset_request()
        } else {
            Fault::lost_request()
        }
    })
    .for_good()
    .patience(1)
    .fails("transient_error", ["connection failed", "network"])
    .await;
}

/// The time-out of a request takes ten seconds: all that waits for it does so side by side.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_never_answered_goes_again() {
    let never_opened = Gate::new();
    let answer = never_opened.clone();
    let drills = [
        tokio::spawn(drill(|_| Fault::silence()).stores_all_once()),
        // It was stored, and the answer never comes.
        tokio::spawn(drill(move |_| Fault::hold_answer(&answer)).stores_all()),
        // Time-outs only, and a second one when the patience is at its end.
        tokio::spawn(
            drill(|_| Fault::silence())
                .for_good()
                .patience(1)
                .only(Phase::LastFlush, Layout::Three)
                .fails("transient_error", ["timeout", "network"]),
        ),
        tokio::spawn(requests_whose_bytes_are_never_read_go_again()),
    ];
    for drill in drills {
        if let Err(error) = drill.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    drop(never_opened);
}

async fn requests_whose_bytes_are_never_read_go_again() {
    every_other_request_is_cut(|nth| (nth == 2).then_some(Cut::NeverRead)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_reset_before_their_first_byte_go_again() {
    every_other_request_is_cut(|nth| {
        let hangup = if nth % 4 == 1 {
            Hangup::Reset
        } else {
            Hangup::Close
        };
        (nth % 2 == 1).then_some(Cut::AtHead(hangup))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_reset_in_the_middle_go_again() {
    every_other_request_is_cut(|nth| {
        let hangup = if nth % 4 == 1 {
            Hangup::Reset
        } else {
            Hangup::Close
        };
        (nth % 2 == 1).then_some(Cut::AfterBytes(200 * nth, hangup))
    })
    .await;
}

/// A sync of two streams. `cut` says what becomes of the n-th request before it is read.
async fn every_other_request_is_cut(cut: fn(usize) -> Option<Cut>) {
    let kinesis = Kinesis::start().await;
    let names = ["s0", "s1"];
    for name in names {
        kinesis.create_stream(&format!("_{name}"), 1).await;
    }
    kinesis.cut(move |operation, nth| match operation {
        "PutRecords" => cut(nth).unwrap_or(Cut::Read),
        _ => Cut::Read,
    });
    let mut input = Vec::new();
    for name in names {
        input.extend(records(name, RECORDS));
        input.push(state_stream(name, json!({ "cursor": RECORDS })));
    }
    let run = Write::to(&kinesis)
        .config(json!({ "bufferSize": 10 }))
        .catalog(catalog(names.map(stream)))
        .input(input.clone())
        .deadline(Duration::from_secs(60))
        .run()
        .await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
    let data: Vec<String> = (0..RECORDS).map(numbered).collect();
    for name in names {
        // What was cut was never stored.
        assert_exactly_stored(&kinesis, &format!("_{name}"), &data).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_away_for_a_while_is_waited_for() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_s0", 1).await;
    let mut running = Write::to(&kinesis)
        .config(json!({ "bufferSize": 5 }))
        .catalog(catalog([stream("s0")]))
        .spawn()
        .await;
    let mut input = records("s0", 20);
    input.push(state_stream("s0", json!({ "cursor": 20 })));
    for line in &input[..7] {
        running.send(line.clone()).await;
    }
    kinesis.wait_for_stored("_s0", 5).await;
    kinesis.on("PutRecords", |_| Fault::reset_request());
    for line in &input[7..] {
        running.send(line.clone()).await;
    }
    kinesis.wait_for_calls("PutRecords", 6).await;
    assert_eq!(running.states_so_far(), 0);
    kinesis.heal();
    let run = running.finish().await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
    let data: Vec<String> = (0..20).map(numbered).collect();
    assert_exactly_stored(&kinesis, "_s0", &data).await;
}

/// A sync in requests of ten records, which go through TLS.
fn over(tls: &Tls, kinesis: &Kinesis) -> Program {
    Write::to(kinesis)
        .config(json!({ "endpoint": tls.endpoint(), "bufferSize": 10 }))
        .env("AWS_CA_BUNDLE", tls.authority())
}

/// Three hundred records, in requests of ten, over HTTP/2.
async fn write_over_http2(kinesis: &Kinesis, tls: &Tls) {
    kinesis.create_stream("_users", 2).await;
    let mut input = records("users", 300);
    input.push(state_stream("users", json!({ "cursor": 300 })));
    let write = over(tls, kinesis)
        .catalog(catalog([stream("users")]))
        .input(input.clone());
    let run = write.run().await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert_earned(kinesis, &input, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_requests_take_turns_between_several_connections() {
    let kinesis = Kinesis::start().await;
    let tls = Tls::http2_before(&kinesis.endpoint()).await;
    write_over_http2(&kinesis, &tls).await;
    let data: Vec<String> = (0..300).map(numbered).collect();
    assert_exactly_stored(&kinesis, "_users", &data).await;
    // A client may open one for each request that comes before it knows that one is enough.
    assert!(tls.connections().opened() >= TLS_CLIENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_its_way_when_http2_connections_broke_goes_again() {
    let kinesis = Kinesis::start().await;
    let tls = Tls::http2_before(&kinesis.endpoint()).await;
    let connections = tls.connections().clone();
    kinesis.on("PutRecords", move |call| {
        if call.nth % 10 == 0 {
            connections.break_all();
        }
        Fault::pass()
    });
    write_over_http2(&kinesis, &tls).await;
    let data: Vec<String> = (0..300).map(numbered).collect();
    assert_stored_at_least_once(&kinesis, "_users", &data).await;
    assert!(tls.connections().opened() > TLS_CLIENTS);
}

/// A firewall that forgets connections tells nobody.
#[tokio::test(flavor = "multi_thread")]
async fn http2_connections_that_are_silently_dead_are_given_up_together() {
    let kinesis = Kinesis::start().await;
    let tls = Tls::http2_before(&kinesis.endpoint()).await;
    // Less than the ten seconds that one try takes: the second one must work.
    let write = over(&tls, &kinesis).config(json!({ "retryTimeoutSeconds": 5 }));
    let mut running = warmed_up(&kinesis, write).await;
    tls.connections().forget_all();
    let state = state_stream("users", json!({ "cursor": 210 }));
    let input = (200..210).map(|n| record("users", numbered(n)));
    drop(running.feed(input.chain([state])));
    let run = running.finish().await;
    run.assert_success();
    assert_eq!(run.states().len(), 1);
    let data: Vec<String> = (0..210).map(numbered).collect();
    // The last answers before may have been on their way.
    assert_stored_at_least_once(&kinesis, "_users", &data).await;
}

/// Whether the progress line says that so many requests are under way.
fn has_in_flight(line: &Line, requests: usize) -> bool {
    let message = line.message["log"]["message"].as_str().unwrap_or_default();
    message.contains(&format!("{requests} requests in flight"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_its_turn_when_http2_connections_broke_goes_again() {
    let kinesis = Kinesis::start().await;
    let tls = Tls::http2_one_at_a_time_before(&kinesis.endpoint()).await;
    let mut running = warmed_up(&kinesis, over(&tls, &kinesis)).await;
    let gate = Gate::new();
    tls.hold(&gate);
    for line in (200..360).map(|n| record("users", numbered(n))) {
        running.send(line).await;
    }
    running
        .wait_for_message(|line| has_in_flight(line, 16))
        .await;
    tls.connections().break_all();
    gate.open();
    running
        .send(state_stream("users", json!({ "cursor": 360 })))
        .await;
    let run = running.finish().await;
    run.assert_success();
    assert_eq!(run.states().len(), 1);
    let data: Vec<String> = (0..360).map(numbered).collect();
    assert_stored_at_least_once(&kinesis, "_users", &data).await;
}

/// Records that make a request of one megabyte, ten together.
const LARGE_BYTES: usize = 100_000;

fn large(n: usize) -> String {
    json!({ "n": n, "text": "x".repeat(LARGE_BYTES) }).to_string()
}

/// A sync that has shown that requests work, so that many may be on their way at a time.
async fn warmed_up(kinesis: &Kinesis, write: Program) -> Running {
    kinesis.create_stream("_users", 2).await;
    let write = write
        .catalog(catalog([stream("users")]))
        .deadline(Duration::from_secs(60));
    let mut running = write.spawn().await;
    for line in records("users", 200) {
        running.send(line).await;
    }
    kinesis.wait_for_stored("_users", 200).await;
    running
}

/// More than may be held, and a state.
fn large_input() -> Vec<Message> {
    let records = (0..300).map(|n| record("users", large(n)));
    let state = state_stream("users", json!({ "cursor": 500 }));
    records.chain([state]).collect()
}

/// Counted only: to look into all of it takes long.
async fn assert_all_is_stored(kinesis: &Kinesis, running: Running) {
    let run = running.finish().await;
    run.assert_success();
    assert_eq!(run.states().len(), 1);
    assert_eq!(kinesis.stored_count("_users"), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_a_server_does_not_read_are_few() {
    let kinesis = Kinesis::start().await;
    let tls = Tls::http2_before(&kinesis.endpoint()).await;
    let mut running = warmed_up(&kinesis, over(&tls, &kinesis)).await;
    let gate = Gate::new();
    tls.hold(&gate);
    let mut taken = running.feed(large_input());
    // What was read by then is twice as much as may be on its way to be sent.
    let enough = taken.wait_for(|&taken| taken > 2 * UNSENT_BYTES_MAX + 2_000_000);
    drop(enough.await.expect("it is read"));
    let requests_max = UNSENT_BYTES_MAX / (10 * LARGE_BYTES);
    gate.waiting(requests_max).await;
    assert_eq!(gate.held(), requests_max);
    gate.open();
    assert_all_is_stored(&kinesis, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_were_read_and_are_not_answered_make_room_for_others() {
    let kinesis = Kinesis::start().await;
    let write = Write::to(&kinesis).config(json!({ "bufferSize": 10 }));
    let mut running = warmed_up(&kinesis, write).await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |_| Fault::hold(&held));
    drop(running.feed(large_input()));
    gate.waiting(2 * UNSENT_BYTES_MAX / (10 * LARGE_BYTES))
        .await;
    gate.open();
    assert_all_is_stored(&kinesis, running).await;
}
