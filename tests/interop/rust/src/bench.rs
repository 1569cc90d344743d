//! The part of the benchmarks: what the verbs mean is said in tests/interop/README.md.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::{
    AsyncReadExt, AsyncWriteExt, SinkExt, StreamExt,
    channel::{mpsc, oneshot},
};
use libp2p::{PeerId, Stream, StreamProtocol, multiaddr::Protocol, relay};
use libp2p_stream::{Control, IncomingStreams};
use serde_json::{Value, json};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{FOREVER, Fallible, Waiting, open};

const SINK: &str = "/bench/sink/1.0.0";
const SMALL: &str = "/bench/echo/1.0.0";
const READY: &[u8] = b"+";
const WRITE_SIZE: usize = 64 * 1024;
const SMALL_SIZE: usize = 64;

pub const VERBS: [&str; 6] = ["flood", "ebb", "sunk", "rtt", "cycle", "settle"];

/// A command for the swarm, and where what it waits for goes.
pub type Order = (Value, oneshot::Sender<Fallible<Option<Waiting>>>);

/// What the benchmark verbs keep between two commands.
#[derive(Clone)]
pub struct Bench {
    orders: mpsc::Sender<Order>,
    /// Bytes of each stream, in the order of arrival.
    sinks: Arc<Mutex<Vec<Arc<AtomicU64>>>>,
    flood: Arc<Mutex<Flood>>,
    started: Instant,
}

/// A set of streams that are being written to; each ends with the bytes sent and confirmed.
#[derive(Default)]
struct Flood {
    stop: Arc<AtomicBool>,
    streams: Vec<JoinHandle<io::Result<(u64, u64)>>>,
}

/// The relay's terms without what protects it from strangers.
pub fn unlimited() -> relay::Config {
    relay::Config {
        max_reservations: usize::MAX,
        max_reservations_per_peer: usize::MAX,
        reservation_rate_limiters: Vec::new(),
        max_circuits: usize::MAX,
        max_circuits_per_peer: usize::MAX,
        max_circuit_duration: FOREVER,
        max_circuit_bytes: 0,
        circuit_src_rate_limiters: Vec::new(),
        ..Default::default()
    }
}

impl Bench {
    pub fn new(mut control: Control, orders: mpsc::Sender<Order>) -> Fallible<Self> {
        let bench = Bench {
            orders,
            sinks: Arc::default(),
            flood: Arc::default(),
            started: Instant::now(),
        };
        tokio::spawn(serve_sinks(control.accept(StreamProtocol::new(SINK))?, bench.sinks.clone()));
        tokio::spawn(serve_small(control.accept(StreamProtocol::new(SMALL))?));
        Ok(bench)
    }

    pub async fn perform(&self, control: Control, command: &Value) -> Fallible<Value> {
        match command["do"].as_str().unwrap_or_default() {
            "flood" => {
                let streams = command["streams"].as_u64().unwrap_or(1);
                self.start_flood(control, peer_of(command)?, streams).await
            }
            "ebb" => self.end_flood().await,
            "sunk" => Ok(self.sunk()),
            "rtt" => rtt(control, peer_of(command)?, command).await,
            "cycle" => self.cycle(control, command).await,
            "settle" => Ok(json!({"tasks": Handle::current().metrics().num_alive_tasks()})),
            other => Err(format!("unknown command {other}").into()),
        }
    }

    async fn start_flood(&self, control: Control, peer: PeerId, streams: u64) -> Fallible<Value> {
        let mut opened = Vec::new();
        for _ in 0..streams {
            let mut stream = open(control.clone(), peer, SINK).await?;
            stream.read_exact(&mut [0; READY.len()]).await?;
            opened.push(stream);
        }
        let mut flood = Flood::default();
        for stream in opened {
            flood.streams.push(tokio::spawn(fill(stream, flood.stop.clone())));
        }
        *self.flood.lock().expect("flood") = flood;
        Ok(json!({}))
    }

    async fn end_flood(&self) -> Fallible<Value> {
        let flood = std::mem::take(&mut *self.flood.lock().expect("flood"));
        flood.stop.store(true, Relaxed);
        let (mut sent, mut confirmed) = (0, 0);
        for stream in flood.streams {
            let (one, other) = stream.await??;
            sent += one;
            confirmed += other;
        }
        Ok(json!({"sent": sent, "confirmed": confirmed}))
    }

    fn sunk(&self) -> Value {
        let sinks = self.sinks.lock().expect("sinks");
        let bytes: Vec<_> = sinks.iter().map(|count| count.load(Relaxed)).collect();
        json!({"at": self.started.elapsed().as_secs_f64(), "bytes": bytes})
    }

    async fn cycle(&self, control: Control, command: &Value) -> Fallible<Value> {
        let addr: libp2p::Multiaddr = command["addr"].as_str().unwrap_or_default().parse()?;
        let Some(Protocol::P2p(peer)) = addr.iter().last() else {
            return Err("no peer id at the end".into());
        };
        let mut clock = Clock::new(command);
        while clock.goes_on() {
            let began = Instant::now();
            self.order(json!({"do": "connect", "addr": addr.to_string()})).await?;
            exchange(&mut open(control.clone(), peer, SMALL).await?).await?;
            self.order(json!({"do": "disconnect", "peer": peer.to_string()})).await?;
            clock.took(began);
        }
        Ok(clock.told())
    }

    /// Has the swarm do what a command of that name would.
    async fn order(&self, command: Value) -> Fallible<()> {
        let (answer, taken) = oneshot::channel();
        self.orders.clone().send((command, answer)).await?;
        if let Some(waiting) = taken.await?? {
            waiting.await??;
        }
        Ok(())
    }
}

fn peer_of(command: &Value) -> Fallible<PeerId> {
    Ok(command["peer"].as_str().unwrap_or_default().parse()?)
}

async fn serve_sinks(mut incoming: IncomingStreams, sinks: Arc<Mutex<Vec<Arc<AtomicU64>>>>) {
    while let Some((_, stream)) = incoming.next().await {
        let count = Arc::new(AtomicU64::new(0));
        sinks.lock().expect("sinks").push(count.clone());
        tokio::spawn(sink(stream, count));
    }
}

async fn sink(mut stream: Stream, count: Arc<AtomicU64>) -> io::Result<()> {
    stream.write_all(READY).await?;
    stream.flush().await?;
    let mut buffer = vec![0; WRITE_SIZE];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => count.fetch_add(read as u64, Relaxed),
        };
    }
    stream.write_all(count.load(Relaxed).to_string().as_bytes()).await?;
    stream.close().await
}

async fn serve_small(mut incoming: IncomingStreams) {
    while let Some((_, mut stream)) = incoming.next().await {
        tokio::spawn(async move {
            let mut buffer = [0; SMALL_SIZE];
            while stream.read_exact(&mut buffer).await.is_ok() {
                stream.write_all(&buffer).await?;
                stream.flush().await?;
            }
            stream.close().await
        });
    }
}

async fn fill(mut stream: Stream, stop: Arc<AtomicBool>) -> io::Result<(u64, u64)> {
    let data = vec![0; WRITE_SIZE];
    let mut sent = 0;
    while !stop.load(Relaxed) {
        stream.write_all(&data).await?;
        sent += data.len() as u64;
    }
    stream.close().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok((sent, answer.parse().map_err(io::Error::other)?))
}

async fn rtt(control: Control, peer: PeerId, command: &Value) -> Fallible<Value> {
    let fresh = command["fresh"] == true;
    let mut clock = Clock::new(command);
    let mut standing = None;
    while clock.goes_on() {
        let began = Instant::now();
        if fresh || standing.is_none() {
            standing = Some(open(control.clone(), peer, SMALL).await?);
        }
        let stream = standing.as_mut().expect("opened above");
        exchange(stream).await?;
        clock.took(began);
        if fresh {
            stream.close().await?;
        }
    }
    Ok(clock.told())
}

async fn exchange(stream: &mut Stream) -> io::Result<()> {
    let mut data = [0; SMALL_SIZE];
    stream.write_all(&data).await?;
    stream.flush().await?;
    stream.read_exact(&mut data).await
}

/// So many times, or for so long: microseconds of each.
struct Clock {
    count: usize,
    until: Instant,
    taken: Vec<u64>,
}

impl Clock {
    fn new(command: &Value) -> Self {
        let seconds = command["seconds"].as_f64().unwrap_or(1.0);
        Clock {
            count: command["count"].as_u64().unwrap_or(1) as usize,
            until: Instant::now() + Duration::from_secs_f64(seconds),
            taken: Vec::new(),
        }
    }

    fn goes_on(&self) -> bool {
        self.taken.len() < self.count && Instant::now() < self.until
    }

    fn took(&mut self, began: Instant) {
        self.taken.push(began.elapsed().as_micros() as u64);
    }

    fn told(self) -> Value {
        json!({"us": self.taken})
    }
}
