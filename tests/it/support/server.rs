//! Kinesis in the test process.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use destination_kinesis::aggregate::disaggregate;
use ferrokinesis::actions::{Operation, dispatch};
use ferrokinesis::store::StoreOptions;
use ferrokinesis::types::{Stream, StreamStatus};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::call::{Call, Envelope};
use super::faults::{Cut, Fault, Scripts};
use super::front::accept;
use super::ledger::{CallLog, Ledger};
use super::service::Service;
use super::within;

/// Between two looks at a stream that is to change: the emulator tells nobody when it has.
const POLL: Duration = Duration::from_millis(2);

/// A Kinesis server that does as it is told. Dropping it closes every connection.
pub(crate) struct Kinesis {
    address: SocketAddr,
    service: Arc<Service>,
    accepting: JoinHandle<()>,
}

/// A record that is in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The shard it is in.
    pub(crate) shard_id: String,
    /// Its sequence number.
    pub(crate) sequence_number: String,
    /// Its partition key.
    pub(crate) partition_key: String,
    /// Whether it came in an aggregate, under the partition key of all.
    pub(crate) aggregated: bool,
    /// All of it.
    pub(crate) bytes: Vec<u8>,
    /// The envelope's `_airbyte_ab_id`. Empty, as the next two, if the record is not an envelope.
    pub(crate) id: String,
    /// The envelope's `_airbyte_data`, which is JSON text.
    pub(crate) data: String,
    /// The envelope's `_airbyte_emitted_at`, as it is written.
    pub(crate) emitted_at: String,
}

impl Kinesis {
    /// Starts a server with [`Kinesis::options`].
    pub(crate) async fn start() -> Self {
        Self::with(Self::options()).await
    }

    /// Options that keep tests short: streams change in 20 ms, and nobody runs out of shards.
    pub(crate) fn options() -> StoreOptions {
        StoreOptions {
            create_stream_ms: 20,
            delete_stream_ms: 20,
            update_stream_ms: 20,
            shard_limit: 100_000,
            ..StoreOptions::default()
        }
    }

    /// Starts a server.
    pub(crate) async fn with(options: StoreOptions) -> Self {
        let (router, store) = ferrokinesis::create_app(options);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let service = Arc::new(Service::new(router, store));
        let accepting = tokio::spawn(accept(listener, service.clone()));
        Self {
            address,
            service,
            accepting,
        }
    }

    /// Where it listens, as the configuration has it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    // What it does wrong.

    /// Lets `script` decide about every request that no script of [`Self::on`] is for. Replaces the
    /// one before.
    pub(crate) fn script(&self, script: impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static) {
        self.rewrite(|scripts| scripts.any = Some(Arc::new(script)));
    }

    /// Lets `script` decide about requests of one operation. Replaces the one before.
    pub(crate) fn on(
        &self,
        operation: &str,
        script: impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static,
    ) {
        self.rewrite(|scripts| {
            scripts
                .by_operation
                .insert(operation.to_owned(), Arc::new(script));
        });
    }

    /// Lets `cutter` decide, from the operation and which request of it this is (from 1), whether
    /// the body is read. A request that is cut is in no log, and no script sees it.
    pub(crate) fn cut(&self, cutter: impl Fn(&str, usize) -> Cut + Send + Sync + 'static) {
        self.rewrite(|scripts| scripts.cut = Some(Arc::new(cutter)));
    }

    /// Resets every connection, new and old, before it can say anything. What is being served is
    /// still answered.
    pub(crate) fn go_offline(&self) {
        self.rewrite(|scripts| scripts.offline = true);
    }

    /// Forgets all scripts, and is online. What is held at a gate or silent stays so.
    pub(crate) fn heal(&self) {
        self.rewrite(|scripts| *scripts = Scripts::default());
    }

    fn rewrite(&self, change: impl FnOnce(&mut Scripts)) {
        change(
            &mut self
                .service
                .scripts
                .write()
                .expect("no script panics while it is set"),
        );
    }

    /// From now on keeps the limits AWS has for an account: calls per second of `CreateStream` and
    /// the `Describe`s and `ListStreams`, and streams in `CREATING`. What is beyond them gets a
    /// `LimitExceededException`.
    pub(crate) fn enforce_control_plane_limits(&self) {
        self.service.ledger.send_modify(Ledger::enforce_limits);
    }

    // Streams, past the network and all faults.

    /// Creates a stream and waits until it is active.
    pub(crate) async fn create_stream(&self, name: &str, shards: usize) {
        let request = json!({ "StreamName": name, "ShardCount": shards });
        self.do_it(Operation::CreateStream, request).await;
        self.until_active(name).await;
    }

    /// Deletes a stream and waits until it is gone.
    pub(crate) async fn delete_stream(&self, name: &str) {
        self.do_it(Operation::DeleteStream, json!({ "StreamName": name }))
            .await;
        self.until(name, "be gone", |stream| stream.is_none()).await;
        self.service.ledger.send_modify(|ledger| {
            ledger.stored.remove(name);
        });
    }

    /// Forgets when records of the stream were acknowledged, for who has no use for it and many records.
    pub(crate) fn forget_acknowledged(&self, stream: &str) {
        self.service.ledger.send_modify(|ledger| {
            ledger.acknowledged.remove(stream);
        });
    }

    /// Replaces the stream's shards by `shards` new ones, and waits until it is active again.
    /// Writes wait meanwhile.
    pub(crate) async fn reshard(&self, name: &str, shards: usize) {
        let _alone = self.service.topology.write().await;
        let request = json!({
            "StreamName": name,
            "TargetShardCount": shards,
            "ScalingType": "UNIFORM_SCALING",
        });
        self.do_it(Operation::UpdateShardCount, request).await;
        self.until_active(name).await;
    }

    /// Makes the stream take records up to this size, up to the emulator's 5 MiB for a request, and
    /// say so when it is described. Without this it takes 1 MiB, and says nothing.
    pub(crate) fn set_record_size(&self, stream: &str, kib: u32) {
        let mut sizes = self
            .service
            .record_kib
            .write()
            .expect("nobody panics while it is set");
        sizes.insert(stream.to_owned(), kib);
    }

    /// The names of all streams.
    pub(crate) async fn streams(&self) -> Vec<String> {
        self.service.store.list_stream_names().await
    }

    /// The number of shards that take writes.
    ///
    /// # Panics
    ///
    /// If there is no such stream.
    pub(crate) async fn open_shards(&self, stream: &str) -> usize {
        let stream = self
            .service
            .store
            .get_stream(stream)
            .await
            .expect("the stream exists");
        let ends = stream
            .shards
            .iter()
            .map(|shard| &shard.sequence_number_range.ending_sequence_number);
        ends.filter(|end| end.is_none()).count()
    }

    /// Everything the stream holds, closed shards included, by shard and sequence number.
    pub(crate) async fn stored(&self, stream: &str) -> Vec<Stored> {
        let records = self.service.store.get_record_store(stream).await;
        let stored = records.into_iter().flat_map(|(key, record)| {
            let (shard, sequence_number) = key.split_once('/').expect("shard and sequence number");
            let shard = u32::from_str_radix(shard, 16).expect("a shard's number");
            let bytes = BASE64
                .decode(&record.data)
                .expect("the emulator keeps base64");
            let sequence_number = sequence_number.to_owned();
            disaggregate(&bytes).into_iter().map(move |part| {
                let envelope = Envelope::read(&part);
                Stored {
                    shard_id: format!("shardId-{shard:012}"),
                    sequence_number: sequence_number.clone(),
                    partition_key: record.partition_key.clone(),
                    aggregated: part != bytes,
                    bytes: part.into(),
                    id: envelope.id,
                    data: envelope.data,
                    emitted_at: envelope
                        .emitted_at
                        .map_or_else(String::new, |raw| raw.get().to_owned()),
                }
            })
        });
        stored.collect()
    }

    /// How many Kinesis records were stored in the stream, counted as they came. For the moment; see
    /// [`Self::stored`].
    pub(crate) fn stored_count(&self, stream: &str) -> usize {
        self.service
            .ledger
            .borrow()
            .stored
            .get(stream)
            .copied()
            .unwrap_or(0)
    }

    async fn do_it(&self, operation: Operation, request: Value) {
        let done = dispatch(&self.service.store, operation, request).await;
        done.unwrap_or_else(|error| panic!("{operation}: {error}: {:?}", error.body.message));
    }

    async fn until_active(&self, name: &str) {
        self.until(name, "be active", |stream| {
            stream.is_some_and(|stream| stream.stream_status == StreamStatus::Active)
        })
        .await;
    }

    async fn until(&self, name: &str, what: &str, done: impl Fn(Option<&Stream>) -> bool) {
        within(&format!("{name} to {what}"), async {
            while !done(self.service.store.get_stream(name).await.ok().as_ref()) {
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
    }

    // What it saw.

    /// Every request that arrived in full, in order.
    pub(crate) fn calls(&self) -> Vec<CallLog> {
        self.service.ledger.borrow().calls.clone()
    }

    /// The requests of one operation that arrived in full, in order.
    pub(crate) fn calls_of(&self, operation: &str) -> Vec<CallLog> {
        let mut calls = self.calls();
        calls.retain(|call| call.operation == operation);
        calls
    }

    /// The most `PutRecords` that were under way at once.
    pub(crate) fn max_in_flight(&self) -> usize {
        self.service.ledger.borrow().in_flight_max
    }

    /// The most streams that were in `CREATING` at once, of those that clients created.
    pub(crate) fn max_creating(&self) -> usize {
        self.service.ledger.borrow().creating_max
    }

    /// The most calls of an operation within any one second.
    pub(crate) fn max_per_second(&self, operation: &str) -> usize {
        self.service.ledger.borrow().busiest_second(operation)
    }

    /// How many calls were beyond the limits of [`Self::enforce_control_plane_limits`].
    pub(crate) fn over_limit(&self) -> usize {
        self.service.ledger.borrow().over_limit
    }

    /// When each sequence number of the stream was told to a client. Taken just before the answer
    /// is written, so no client can have known earlier.
    pub(crate) fn acknowledged(&self, stream: &str) -> HashMap<String, Instant> {
        let ledger = self.service.ledger.borrow();
        ledger.acknowledged.get(stream).cloned().unwrap_or_default()
    }

    /// Waits until `count` requests of the operation have arrived.
    ///
    /// # Panics
    ///
    /// If they do not come within [`DEADLINE`](super::DEADLINE).
    pub(crate) async fn wait_for_calls(&self, operation: &str, count: usize) {
        self.wait_for(&format!("{count} {operation}"), |ledger| {
            ledger
                .calls
                .iter()
                .filter(|call| call.operation == operation)
                .count()
                >= count
        })
        .await;
    }

    /// Waits until `count` records have been stored in the stream.
    ///
    /// # Panics
    ///
    /// If they do not come within [`DEADLINE`](super::DEADLINE).
    pub(crate) async fn wait_for_stored(&self, stream: &str, count: usize) {
        self.wait_for(&format!("{count} records in {stream}"), |ledger| {
            ledger
                .stored
                .get(stream)
                .is_some_and(|stored| *stored >= count)
        })
        .await;
    }

    async fn wait_for(&self, what: &str, done: impl Fn(&Ledger) -> bool) {
        let mut ledger = self.service.ledger.subscribe();
        let waited = within(what, ledger.wait_for(|ledger| done(ledger))).await;
        drop(waited.expect("the server keeps its ledger"));
    }
}

impl Drop for Kinesis {
    fn drop(&mut self) {
        let died = self.accepting.is_finished();
        // The connections belong to the task that accepts them.
        self.accepting.abort();
        assert!(
            !died || std::thread::panicking(),
            "the server panicked, probably in a script"
        );
    }
}
