//! `write`: records in, states out.

use serde_json::json;

use crate::support::messages::{catalog, numbered, records, state_stream, stream};
use crate::support::program::Write;
use crate::support::server::Kinesis;
use crate::support::verdict::{
    assert_all_states, assert_earned, assert_exactly_stored, assert_record_counts,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_small_sync_stores_every_record_and_sends_every_state_back() {
    let kinesis = Kinesis::start().await;
    let mut input = records("users", 10);
    input.push(state_stream("users", json!({"cursor": 10})));
    let run = Write::to(&kinesis)
        .catalog(catalog([stream("users")]))
        .input(input.iter().map(ToString::to_string))
        .run()
        .await;
    eprintln!("{}", run.stdout());
    run.assert_success();
    run.assert_no_secrets();
    let expected: Vec<_> = (0..10).map(numbered).collect();
    assert_exactly_stored(&kinesis, "_users", &expected).await;
    assert_all_states(&input, &run);
    assert_record_counts(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
}
