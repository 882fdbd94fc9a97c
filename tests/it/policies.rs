//! The IAM policies of the documents are enough: a server that denies all else does not stop the connector. And each action in
//! them is needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::faults::Fault;
use crate::support::messages::{catalog, records, state_stream, stream};
use crate::support::program::{Check, Finished, Write};
use crate::support::server::Kinesis;

/// What a policy of docs/examples allows: actions, and what the stream's name must begin with.
struct Policy {
    actions: BTreeSet<String>,
    prefix: String,
}

impl Policy {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join(format!("docs/examples/policies/{name}.json"));
        let policy: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let statement = &policy["Statement"][0];
        let actions = statement["Action"].as_array().unwrap().iter();
        let resource = statement["Resource"].as_str().unwrap();
        let (_, stream) = resource.split_once(":stream/").unwrap();
        Self {
            actions: actions
                .map(|action| action.as_str().unwrap().to_owned())
                .collect(),
            prefix: stream.strip_suffix('*').unwrap().to_owned(),
        }
    }

    fn allows(&self, action: &str, stream: &str) -> bool {
        self.actions.contains(action) && stream.starts_with(&self.prefix)
    }
}

/// A server that denies what none of the policies allows. The first request to write is throttled, so that the connector also asks
/// for what it needs only then.
async fn server(policies: Vec<Policy>) -> Kinesis {
    let kinesis = Kinesis::start().await;
    kinesis.script(move |call| {
        let tags = call.operation == "CreateStream" && !call.json()["Tags"].is_null();
        let needed = [Some(call.operation), tags.then_some("AddTagsToStream")];
        let allowed = needed.into_iter().flatten().all(|operation| {
            let action = format!("kinesis:{operation}");
            let mut policies = policies.iter();
            policies.any(|policy| policy.allows(&action, call.stream))
        });
        if !allowed {
            Fault::error(400, "AccessDeniedException", "no")
        } else if call.operation == "PutRecords" && call.nth_for_stream == 1 {
            Fault::throttle(0..call.len())
        } else {
            Fault::pass()
        }
    });
    kinesis
}

async fn write(kinesis: &Kinesis, settings: Value) -> Finished {
    let mut input: Vec<_> = records("customers", 10)
        .into_iter()
        .map(|record| record.namespace("shop").line())
        .collect();
    input.push(
        state_stream("customers", json!({}))
            .namespace("shop")
            .line(),
    );
    Write::to(kinesis)
        .config(settings)
        .catalog(catalog([stream("customers").namespace("shop")]))
        .input(input)
        .run()
        .await
}

/// The policy without one of its actions, for each; and last, as it is.
fn with_each_gap(name: &str) -> Vec<(Option<String>, Policy)> {
    let gaps = Policy::read(name).actions.into_iter().map(Some);
    gaps.chain([None])
        .map(|gap| {
            let mut policy = Policy::read(name);
            policy.actions.retain(|action| Some(action) != gap.as_ref());
            (gap, policy)
        })
        .collect()
}

/// With the whole policy no permission is mentioned; without one of its actions, that one is.
fn assert_named(run: &Finished, gap: Option<String>) {
    let action = gap.as_deref().unwrap_or("kinesis:");
    assert_eq!(
        run.stdout().contains(action),
        gap.is_some(),
        "{action}: {run}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_for_streams_that_exist_is_enough_and_not_too_much() {
    for (gap, policy) in with_each_gap("write") {
        let kinesis = server(vec![policy]).await;
        kinesis.create_stream("shop_customers", 1).await;
        let run = write(&kinesis, json!({})).await;
        if gap.is_none() {
            run.assert_success();
        }
        assert_named(&run, gap);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_and_keys_need_no_more() {
    let kinesis = server(vec![Policy::read("write")]).await;
    kinesis.create_stream("shop_customers", 2).await;
    let settings = json!({"aggregation": "kpl", "partitionKey": "primary_key"});
    let run = write(&kinesis, settings).await;
    run.assert_success();
    assert_named(&run, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policies_for_new_streams_are_enough_and_not_too_much() {
    let tags = json!({"tags": [{"key": "team", "value": "data"}]});
    for (feature, settings) in [("create", json!({})), ("tags", tags)] {
        for (gap, policy) in with_each_gap(feature) {
            let mut policies = vec![Policy::read("write"), policy];
            if feature == "tags" {
                policies.push(Policy::read("create"));
            }
            let run = write(&server(policies).await, settings.clone()).await;
            if gap.is_none() {
                run.assert_success();
            }
            assert_named(&run, gap);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_for_check_is_enough_and_not_too_much() {
    for (gap, policy) in with_each_gap("check") {
        let kinesis = server(vec![policy]).await;
        let run = Check::against(&kinesis).run().await;
        if gap.is_none() {
            run.assert_connected();
        }
        assert_named(&run, gap);
    }
}
