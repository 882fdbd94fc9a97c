//! What only shows on a connection of one's own.

use std::io;

use ciborium::Value as Cbor;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::stored;
use crate::support::faults::Fault;
use crate::support::server::Kinesis;

/// A connection.
struct Wire(TcpStream);

impl Wire {
    async fn open(kinesis: &Kinesis) -> Self {
        let address = kinesis.endpoint();
        Self(
            TcpStream::connect(address.trim_start_matches("http://"))
                .await
                .unwrap(),
        )
    }

    /// Puts `r0` and `r1` into the stream `s`: the answer's head, in small letters, and its body.
    async fn put(&mut self) -> io::Result<(String, Value)> {
        let text = |text: &str| Cbor::Text(text.to_owned());
        let entry = |data: &[u8]| {
            let data = Cbor::Bytes(data.to_vec());
            Cbor::Map(vec![
                (text("PartitionKey"), text("key")),
                (text("Data"), data),
            ])
        };
        let records = Cbor::Array(vec![entry(b"r0"), entry(b"r1")]);
        let request = Cbor::Map(vec![
            (text("StreamName"), text("s")),
            (text("Records"), records),
        ]);
        let mut body = Vec::new();
        ciborium::into_writer(&request, &mut body).unwrap();
        let head = [
            "POST / HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/x-amz-cbor-1.1",
            "X-Amz-Target: Kinesis_20131202.PutRecords",
            "X-Amz-Date: 20260101T000000Z",
            "Authorization: AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c",
            &format!("Content-Length: {}\r\n\r\n", body.len()),
        ];
        self.0.write_all(head.join("\r\n").as_bytes()).await?;
        self.0.write_all(&body).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let len = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        let mut body = vec![0; len.parse().unwrap()];
        self.0.read_exact(&mut body).await?;
        let body: Cbor = ciborium::from_reader(&body[..]).unwrap();
        Ok((head, ferrokinesis::server::cbor_to_json(&body)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn speaks_cbor() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("s", 1).await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::pass(),
        2 => Fault::refuse(
            call.positions(|entry| entry.bytes == b"r1"),
            "InternalFailure",
        ),
        _ => Fault::error(400, "AccessDeniedException", "no"),
    });
    let mut wire = Wire::open(&kinesis).await;
    for refused in [false, true] {
        let (head, answer) = wire.put().await.unwrap();
        assert!(
            head.contains("content-type: application/x-amz-cbor-1.1"),
            "{head}"
        );
        assert!(head.contains("x-amzn-requestid: "), "{head}");
        assert_eq!(answer["FailedRecordCount"], u8::from(refused));
        assert_eq!(answer["Records"][1]["SequenceNumber"].is_null(), refused);
    }
    assert_eq!(stored(&kinesis).await, ["r0", "r0", "r1"]);
    assert_eq!(kinesis.acknowledged("s").len(), 3);
    let (head, answer) = wire.put().await.unwrap();
    assert!(head.starts_with("http/1.1 400 "), "{head}");
    assert_eq!(answer["__type"], "AccessDeniedException");
    assert!(kinesis.calls().iter().all(|call| call.connection == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_connections_after_answers() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("s", 1).await;
    kinesis.script(|call| match call.nth {
        1 => Fault::pass().announcing_close(),
        2 => Fault::pass().then_closed(),
        3 => Fault::pass().then_stale(),
        _ => Fault::pass(),
    });
    for announced in [true, false] {
        let mut wire = Wire::open(&kinesis).await;
        let (head, _) = wire.put().await.unwrap();
        assert_eq!(head.contains("connection: close"), announced);
        assert_eq!(
            wire.0.read(&mut [0]).await.unwrap(),
            0,
            "the connection is closed"
        );
    }
    let mut wire = Wire::open(&kinesis).await;
    wire.put().await.unwrap();
    assert_eq!(
        wire.put().await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    assert_eq!(
        kinesis.calls().len(),
        3,
        "the request on the stale connection is lost"
    );
}
