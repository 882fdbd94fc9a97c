//! Which shard takes a partition key: the open shards' ranges of the hash space.
//!
//! Kinesis hashes a partition key with MD5 to a 128-bit number
//! ([key concepts](https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html#partition-key)).

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::Shard;
use md5::{Digest, Md5};

use crate::fault::{Fault, FaultKind};

/// The open shards of a stream, in the order of their hash ranges, which leave no gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    shards: Vec<OpenShard>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OpenShard {
    id: String,
    first_hash: u128,
}

impl ShardMap {
    /// Reads the map from a list of shards, closed ones among them. `None` where the open ones do not
    /// begin at zero, so that a key would have no shard.
    pub fn new(shards: &[Shard]) -> Option<Self> {
        let mut open: Vec<_> = shards
            .iter()
            .filter(|shard| is_open(shard))
            .filter_map(|shard| {
                Some(OpenShard {
                    id: shard.shard_id().to_owned(),
                    first_hash: shard.hash_key_range()?.starting_hash_key().parse().ok()?,
                })
            })
            .collect();
        open.sort_by_key(|shard| shard.first_hash);
        let begins_at_zero = open.first().is_some_and(|first| first.first_hash == 0);
        begins_at_zero.then_some(Self { shards: open })
    }

    /// Asks Kinesis for the map.
    ///
    /// # Errors
    ///
    /// The fault of the call, or of an answer that makes no map.
    pub async fn fetch(client: &Client, stream_name: &str) -> Result<Self, Fault> {
        let shards = list_shards(client, stream_name).await?;
        Self::new(&shards).ok_or_else(|| {
            Fault::local(
                FaultKind::Unexpected,
                "incomplete shard list",
                "ListShards gave open shards that do not begin at hash key 0".to_owned(),
                false,
            )
        })
    }

    /// How many shards are open.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// The id of the shard with this index.
    pub fn shard_id(&self, index: usize) -> &str {
        &self.shards[index].id
    }

    /// The index of the shard with this id.
    pub fn index_of_id(&self, id: &str) -> Option<usize> {
        self.shards.iter().position(|shard| shard.id == id)
    }

    /// The index of the shard that takes this partition key.
    pub fn index_of_key(&self, partition_key: &str) -> usize {
        let hash = u128::from_be_bytes(Md5::digest(partition_key).into());
        self.shards
            .partition_point(|shard| shard.first_hash <= hash)
            - 1
    }
}

/// Whether a shard still takes records.
pub fn is_open(shard: &Shard) -> bool {
    shard
        .sequence_number_range()
        .is_none_or(|range| range.ending_sequence_number().is_none())
}

/// All shards of a stream that still hold records, closed ones too, from every page.
///
/// # Errors
///
/// The fault of the first call that fails.
pub async fn list_shards(client: &Client, stream_name: &str) -> Result<Vec<Shard>, Fault> {
    let mut shards = Vec::new();
    let mut next_token: Option<String> = None;
    loop {
        // With a token, the stream must not be named again.
        let request = client.list_shards();
        let request = match next_token.take() {
            Some(token) => request.next_token(token),
            None => request.stream_name(stream_name),
        };
        let page = request.send().await.map_err(|error| Fault::of(&error))?;
        shards.extend(page.shards.unwrap_or_default());
        next_token = page.next_token.filter(|token| !token.is_empty());
        if next_token.is_none() {
            return Ok(shards);
        }
    }
}
