//! The HTTP/1.1 front of the server: reads requests off the socket by hand, because most faults are
//! out of reach of an HTTP library, and hands what it should serve to the emulator.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::call::{Codec, Request};
use super::faults::{Cut, Fault, Hangup, Pace, Then};
use super::ledger::Ledger;
use super::service::Service;

/// The largest body that is read. AWS takes 10 MiB of records, a third more in base64.
pub(super) const BODY_BYTES_MAX: usize = 20 << 20;

/// Accepts connections until it is dropped, and with it all of them.
pub(super) async fn accept(listener: TcpListener, service: Arc<Service>) {
    let mut accepted_so_far = 0;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.expect("a connection can be accepted");
                let connection = Connection::new(stream, accepted_so_far, service.clone());
                connections.spawn(connection.serve());
                accepted_so_far += 1;
            }
            // A script that panics is a failed test: let it be heard here, not as a lost connection
            // there.
            Some(ended) = connections.join_next() => ended.expect("no script panics"),
        }
    }
}

/// One client's connection.
struct Connection {
    stream: BufReader<TcpStream>,
    number: usize,
    service: Arc<Service>,
}

/// What precedes the body of a request. Only the headers are of interest.
pub(super) struct Head {
    /// Names in small letters.
    pub(super) headers: Vec<(String, String)>,
}

/// The client or the script has ended the connection.
struct Gone;

impl From<std::io::Error> for Gone {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl Connection {
    fn new(stream: TcpStream, number: usize, service: Arc<Service>) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        Self {
            stream: BufReader::new(stream),
            number,
            service,
        }
    }

    /// Serves requests until the connection ends.
    async fn serve(mut self) {
        while let Ok(()) = self.one_request().await {}
    }

    /// Serves one request. Returns if the connection can take another.
    async fn one_request(&mut self) -> Result<(), Gone> {
        let service = self.service.clone();
        if service.scripts().offline {
            return self.hang_up(Hangup::Reset).await;
        }
        let head = self.read_head().await?;
        if service.scripts().offline {
            // The wait for the head may have taken long.
            return self.hang_up(Hangup::Reset).await;
        }
        let body = self.read_body(&head).await?;
        let (admitted, fault) = service.admit(&head, body, self.number);
        let Fault {
            before,
            deed,
            meanwhile,
            answer,
            pace,
            then,
        } = fault;
        let in_flight = InFlight::take_off(&service.ledger, &admitted.request);
        for pause in before {
            pause.wait().await;
        }
        let served = service.perform(&head, &admitted.request, deed).await;
        for pause in meanwhile {
            pause.wait().await;
        }
        let reply = match served.told_as(answer, admitted.request.codec) {
            Ok(reply) => reply,
            Err(hangup) => return self.hang_up(hangup).await,
        };
        drop(in_flight);
        let bytes = reply.to_bytes(matches!(then, Then::AnnounceClose));
        self.send(&bytes, pace, || service.confirm(&admitted, &reply))
            .await?;
        match then {
            Then::KeepAlive => Ok(()),
            Then::AnnounceClose | Then::CloseSilently => self.hang_up(Hangup::Close).await,
            Then::ResetOnReuse => {
                // The first byte of the next request, or the end of the connection.
                self.stream.fill_buf().await?;
                self.hang_up(Hangup::Reset).await
            }
        }
    }

    /// Reads up to the empty line.
    async fn read_head(&mut self) -> Result<Head, Gone> {
        let mut headers = Vec::new();
        let mut request_line = true;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(Gone);
            }
            let line = line.trim_end();
            if line.is_empty() && !request_line {
                return Ok(Head { headers });
            }
            if let Some((name, value)) = line.split_once(':').filter(|_| !request_line) {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            request_line = false;
        }
    }

    /// Reads the body, if no script cuts it.
    async fn read_body(&mut self, head: &Head) -> Result<Bytes, Gone> {
        let len = head
            .get("content-length")
            .and_then(|len| len.parse().ok())
            .unwrap_or(0);
        assert!(len <= BODY_BYTES_MAX, "a body of {len} bytes");
        let operation = head.operation();
        let mut nth = 0;
        self.service
            .ledger
            .send_modify(|ledger| nth = ledger.head(operation));
        let cut = self
            .service
            .scripts()
            .cut
            .map_or(Cut::Read, |cut| cut(operation, nth));
        match cut {
            Cut::Read => {
                let mut body = vec![0; len];
                self.stream.read_exact(&mut body).await?;
                Ok(Bytes::from(body))
            }
            Cut::AtHead(hangup) => self.hang_up(hangup).await,
            Cut::AfterBytes(bytes, hangup) => {
                let mut part = vec![0; len.min(bytes)];
                self.stream.read_exact(&mut part).await?;
                self.hang_up(hangup).await
            }
            Cut::NeverRead => std::future::pending().await,
        }
    }

    /// Sends an answer. `confirm` is called before the client can know all of it.
    async fn send(&mut self, bytes: &[u8], pace: Pace, confirm: impl FnOnce()) -> Result<(), Gone> {
        let stream = self.stream.get_mut();
        match pace {
            Pace::Whole => {
                confirm();
                stream.write_all(bytes).await?;
            }
            Pace::Trickle(pause) => {
                let (last, others) = bytes.split_last().expect("an answer has a head");
                for byte in others {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(pause).await;
                }
                confirm();
                stream.write_all(&[*last]).await?;
            }
            Pace::Half(hangup) => {
                stream.write_all(&bytes[..bytes.len() / 2]).await?;
                return self.hang_up(hangup).await;
            }
        }
        Ok(())
    }

    /// Ends the connection.
    async fn hang_up<T>(&mut self, hangup: Hangup) -> Result<T, Gone> {
        match hangup {
            Hangup::Close => self.stream.get_mut().shutdown().await?,
            Hangup::Reset => self.stream.get_ref().set_zero_linger()?,
        }
        Err(Gone)
    }
}

impl Head {
    /// A header, by its name in small letters.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn operation(&self) -> &str {
        let target = self.get("x-amz-target").unwrap_or_default();
        target
            .split_once('.')
            .map_or("", |(_, operation)| operation)
    }

    pub(super) fn codec(&self) -> Codec {
        Codec::of(self.get("content-type").unwrap_or_default())
    }
}

/// A `PutRecords` that has not been answered.
struct InFlight<'a>(&'a watch::Sender<Ledger>);

impl<'a> InFlight<'a> {
    fn take_off(ledger: &'a watch::Sender<Ledger>, request: &Request) -> Option<Self> {
        (request.operation == "PutRecords").then(|| {
            ledger.send_modify(Ledger::take_off);
            Self(ledger)
        })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.send_modify(Ledger::land);
    }
}
