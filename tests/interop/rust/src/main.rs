//! A rust-libp2p peer for the interoperability tests: one host on loopback, driven by JSON lines.
//! What each command means is said once, in tests/interop/README.md.

mod bench;

use std::{
    cell::RefCell,
    collections::HashMap,
    error::Error,
    io::{self, Write as _},
    rc::Rc,
    time::Duration,
};

use futures::{
    AsyncReadExt, AsyncWriteExt, StreamExt,
    channel::{mpsc, oneshot},
    future::try_join,
};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    core::ConnectedPoint,
    dcutr, identify, multiaddr::Protocol, noise, ping, relay,
    swarm::{
        ConnectionId, NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use libp2p_stream as stream;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    runtime::Builder,
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};

const ECHO: &str = "/echo/1.0.0";
const DIGEST: &str = "/interop/digest/1.0.0";
const RESET: &str = "/interop/reset/1.0.0";
const DEADLINE: Duration = Duration::from_secs(30);
const CHUNK: usize = 64 * 1024;
/// This relay knows no other way to say "no limit".
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(NetworkBehaviour)]
struct Behaviour {
    client: relay::client::Behaviour,
    relay: Toggle<relay::Behaviour>,
    dcutr: Toggle<dcutr::Behaviour>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    stream: stream::Behaviour,
}

struct Connection {
    id: ConnectionId,
    peer: PeerId,
    addr: Multiaddr,
    limit: Option<relay::client::Event>,
}

/// What the swarm's events leave for the commands.
#[derive(Default)]
struct State {
    connections: Vec<Connection>,
    identified: HashMap<PeerId, identify::Info>,
    dials: HashMap<ConnectionId, oneshot::Sender<Result<Value, String>>>,
    reservations: HashMap<PeerId, oneshot::Sender<Result<Value, String>>>,
    circuits: HashMap<PeerId, relay::client::Event>,
    disconnects: HashMap<PeerId, oneshot::Sender<Result<Value, String>>>,
    bench: Option<bench::Bench>,
}

type Shared = Rc<RefCell<State>>;

fn say(message: Value) {
    let mut out = io::stdout().lock();
    writeln!(out, "{message}").and_then(|()| out.flush()).expect("standard output");
}

/// What every peer sends: it shows a lost, repeated or moved block.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i ^ i >> 8 ^ i >> 16) as u8).collect()
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Fallible<Vec<u8>> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16);
    Ok((0..text.len()).step_by(2).map(byte).collect::<Result<_, _>>()?)
}

fn main() -> Fallible<()> {
    let options: Value = serde_json::from_str(&std::env::args().nth(1).unwrap_or_default())?;
    // A benchmark takes the runtime that applications take; a test needs no second thread.
    let mut runtime = if options["bench"] == true {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    runtime.enable_all().build()?.block_on(LocalSet::new().run_until(run(options)))
}

fn build(options: &Value) -> Fallible<Swarm<Behaviour>> {
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|keys, client| {
            let me = keys.public().to_peer_id();
            let terms = &options["relay"];
            let number = |name: &str| terms[name].as_u64().filter(|value| *value != 0);
            let relay = terms.is_object().then(|| {
                let config = if options["bench"] == true {
                    bench::unlimited()
                } else {
                    relay::Config {
                        reservation_duration: Duration::from_secs(number("reservation").unwrap_or(3600)),
                        max_circuit_duration: number("seconds").map_or(FOREVER, Duration::from_secs),
                        max_circuit_bytes: number("bytes").unwrap_or(0),
                        ..Default::default()
                    }
                };
                relay::Behaviour::new(me, config)
            });
            let dcutr = (options["dcutr"] == true).then(|| dcutr::Behaviour::new(me));
            Behaviour {
                client,
                relay: relay.into(),
                dcutr: dcutr.into(),
                identify: identify::Behaviour::new(
                    identify::Config::new("ipfs/0.1.0".into(), keys.public())
                        .with_agent_version("interop/rust-libp2p".into()),
                ),
                ping: ping::Behaviour::default(),
                stream: stream::Behaviour::new(),
            }
        })?
        .with_swarm_config(|config| {
            let idle = if options["bench"] == true { FOREVER } else { Duration::from_secs(60) };
            config.with_idle_connection_timeout(idle)
        })
        .build();
    Ok(swarm)
}

async fn run(options: Value) -> Fallible<()> {
    let mut swarm = build(&options)?;
    let state = Shared::default();
    serve(&swarm)?;
    let (sender, mut orders) = mpsc::channel::<bench::Order>(1);
    if options["bench"] == true {
        let control = swarm.behaviour().stream.new_control();
        state.borrow_mut().bench = Some(bench::Bench::new(control, sender)?);
    }
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => obey(&mut swarm, &state, serde_json::from_str(&line)?),
                None => return Ok(()),
            },
            Some((command, answer)) = orders.next() => {
                let _ = answer.send(start(&mut swarm, &state, &command));
            }
            event = swarm.select_next_some() => heard(&mut swarm, &state, event, &options),
        }
    }
}

// --- what it serves

fn serve(swarm: &Swarm<Behaviour>) -> Fallible<()> {
    for protocol in [ECHO, DIGEST, RESET] {
        let mut incoming =
            swarm.behaviour().stream.new_control().accept(StreamProtocol::new(protocol))?;
        spawn_local(async move {
            while let Some((peer, stream)) = incoming.next().await {
                spawn_local(async move {
                    let mut bytes = 0;
                    let served = match protocol {
                        ECHO => serve_echo(stream, &mut bytes).await,
                        DIGEST => serve_digest(stream, &mut bytes).await,
                        _ => serve_reset(stream).await,
                    };
                    let ended = if served.is_ok() { "eof" } else { "reset" };
                    say(json!({"event": "served", "protocol": protocol, "peer": peer.to_string(),
                               "bytes": bytes, "ended": ended}));
                });
            }
        });
    }
    Ok(())
}

async fn serve_echo(mut stream: Stream, bytes: &mut usize) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return stream.close().await;
        }
        *bytes += count;
        stream.write_all(&buffer[..count]).await?;
        stream.flush().await?;
    }
}

async fn serve_digest(mut stream: Stream, bytes: &mut usize) -> io::Result<()> {
    let mut data = Vec::new();
    *bytes = stream.read_to_end(&mut data).await?;
    let answer = format!("{} {}", data.len(), hex(&Sha256::digest(&data)));
    stream.write_all(answer.as_bytes()).await?;
    stream.close().await
}

async fn serve_reset(mut stream: Stream) -> io::Result<()> {
    stream.read_exact(&mut [0]).await // and dropping it unclosed resets it
}

// --- what it is told to do

fn obey(swarm: &mut Swarm<Behaviour>, state: &Shared, command: Value) {
    let id = command["id"].clone();
    let started = start(swarm, state, &command);
    let (control, state) = (swarm.behaviour().stream.new_control(), state.clone());
    spawn_local(async move {
        let result = timeout(DEADLINE, async {
            match started? {
                Some(waiting) => Ok(waiting.await??),
                None => perform(control, state, &command).await,
            }
        });
        let mut reply = match result.await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => json!({"error": describe_error(error.as_ref())}),
            Err(_) => json!({"error": "too slow"}),
        };
        reply["id"] = id;
        say(reply);
    });
}

fn describe_error(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        text += &format!(": {cause}");
        inner = cause.source();
    }
    text
}

type Waiting = oneshot::Receiver<Result<Value, String>>;

/// Commands that the swarm itself carries out, answered by its events.
fn start(swarm: &mut Swarm<Behaviour>, state: &Shared, command: &Value) -> Fallible<Option<Waiting>> {
    let (answer, waiting) = oneshot::channel();
    match command["do"].as_str() {
        Some("connect") => {
            let addr: Multiaddr = command["addr"].as_str().unwrap_or_default().parse()?;
            let Some(Protocol::P2p(peer)) = addr.iter().last() else {
                return Err("no peer id at the end".into());
            };
            let dial = DialOpts::peer_id(peer)
                .addresses(vec![addr])
                .condition(PeerCondition::Always)
                .build();
            state.borrow_mut().dials.insert(dial.connection_id(), answer);
            swarm.dial(dial)?;
        }
        Some("reserve") => {
            let addr: Multiaddr = command["addr"].as_str().unwrap_or_default().parse()?;
            let Some(Protocol::P2p(relay)) = addr.iter().last() else {
                return Err("no peer id at the end".into());
            };
            state.borrow_mut().reservations.insert(relay, answer);
            swarm.listen_on(addr.with(Protocol::P2pCircuit))?;
        }
        Some("disconnect") => {
            let peer = command["peer"].as_str().unwrap_or_default().parse()?;
            swarm.disconnect_peer_id(peer).map_err(|()| "not connected")?;
            state.borrow_mut().disconnects.insert(peer, answer);
        }
        _ => return Ok(None),
    }
    Ok(Some(waiting))
}

async fn perform(control: stream::Control, state: Shared, command: &Value) -> Fallible<Value> {
    if bench::VERBS.contains(&command["do"].as_str().unwrap_or_default()) {
        let bench = state.borrow().bench.clone().ok_or("started without bench")?;
        return bench.perform(control, command).await;
    }
    let peer: PeerId = command["peer"].as_str().unwrap_or_default().parse()?;
    let size = command["bytes"].as_u64().unwrap_or(0) as usize;
    // One that the peer dialled may be on its way.
    while command["do"] != "connections" && !state.borrow().connections.iter().any(|c| c.peer == peer) {
        sleep(Duration::from_millis(10)).await;
    }
    match command["do"].as_str().unwrap_or_default() {
        "connections" => {
            let state = state.borrow();
            let ours = state.connections.iter().filter(|conn| conn.peer == peer);
            Ok(json!({"connections": ours.map(describe).collect::<Vec<_>>()}))
        }
        "identify" => loop {
            if let Some(info) = state.borrow().identified.get(&peer) {
                let text = |addrs: &[Multiaddr]| addrs.iter().map(|a| a.to_string()).collect::<Vec<_>>();
                let protocols: Vec<_> = info.protocols.iter().map(|p| p.as_ref()).collect();
                return Ok(json!({"agent": info.agent_version, "protocols": protocols,
                                 "listen": text(&info.listen_addrs),
                                 "observed": info.observed_addr.to_string()}));
            }
            sleep(Duration::from_millis(10)).await;
        },
        "ping" => {
            let mut stream = open(control, peer, "/ipfs/ping/1.0.0").await?;
            let started = std::time::Instant::now();
            let (sent, mut got) = ([7; 32], [0; 32]);
            stream.write_all(&sent).await?;
            stream.flush().await?;
            stream.read_exact(&mut got).await?;
            let took = started.elapsed().as_secs_f64() * 1000.0;
            stream.close().await?;
            if sent != got { Err("another pong than the ping".into()) } else { Ok(json!({"ms": took})) }
        }
        "echo" => {
            let got = send(control, peer, ECHO, size).await?;
            Ok(json!({"bytes": got.len(), "sha256": hex(&Sha256::digest(&got))}))
        }
        "digest" => {
            let got = send(control, peer, DIGEST, size).await?;
            Ok(json!({"answer": String::from_utf8(got)?}))
        }
        "reset" => {
            let mut stream = open(control, peer, ECHO).await?;
            stream.write_all(&[1]).await?;
            stream.flush().await?;
            stream.read_exact(&mut [0]).await?; // and dropping it unclosed resets it
            Ok(json!({}))
        }
        "be_reset" => {
            let mut stream = open(control, peer, RESET).await?;
            stream.write_all(&[1]).await?;
            stream.flush().await?;
            let ended = match stream.read_to_end(&mut Vec::new()).await {
                Ok(_) => "eof",
                Err(_) => "reset",
            };
            Ok(json!({"ended": ended}))
        }
        "exchange" => {
            let protocol = command["protocol"].as_str().unwrap_or_default();
            let mut stream = open(control, peer, protocol).await?;
            stream.write_all(&unhex(command["hex"].as_str().unwrap_or_default())?).await?;
            stream.flush().await?;
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await?;
            Ok(json!({"hex": hex(&got)}))
        }
        other => Err(format!("unknown command {other}").into()),
    }
}

async fn open(mut control: stream::Control, peer: PeerId, protocol: &str) -> Fallible<Stream> {
    Ok(control.open_stream(peer, StreamProtocol::try_from_owned(protocol.into())?).await?)
}

/// Writes the pattern while it reads, half-closes, and reads to the end.
async fn send(control: stream::Control, peer: PeerId, protocol: &str, size: usize) -> Fallible<Vec<u8>> {
    let (mut reader, mut writer) = open(control, peer, protocol).await?.split();
    let mut got = Vec::new();
    let data = pattern(size);
    let writing = async {
        writer.write_all(&data).await?;
        writer.close().await
    };
    try_join(reader.read_to_end(&mut got), writing).await?;
    Ok(got)
}

// --- what the swarm tells

fn heard(
    swarm: &mut Swarm<Behaviour>, shared: &Shared, event: SwarmEvent<BehaviourEvent>, options: &Value,
) {
    let mut state = shared.borrow_mut();
    match event {
        SwarmEvent::NewListenAddr { address, .. } if !relayed(&address) => {
            if options["relay"].is_object() {
                swarm.add_external_address(address.clone());
            }
            say(json!({"event": "ready", "peer": swarm.local_peer_id().to_string(),
                       "addrs": [address.to_string()]}));
        }
        SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
            let addr = match &endpoint {
                ConnectedPoint::Dialer { address, .. } => address.clone(),
                ConnectedPoint::Listener { send_back_addr, local_addr } => {
                    if relayed(local_addr) { local_addr.clone() } else { send_back_addr.clone() }
                }
            };
            let limit = if endpoint.is_relayed() { through(&mut state, &addr) } else { None };
            let conn = Connection { id: connection_id, peer: peer_id, addr, limit };
            if let Some(answer) = state.dials.remove(&connection_id) {
                let _ = answer.send(Ok(describe(&conn)));
            }
            state.connections.push(conn);
        }
        SwarmEvent::ConnectionClosed { connection_id, peer_id, .. } => {
            state.connections.retain(|conn| conn.id != connection_id);
            if !state.connections.iter().any(|conn| conn.peer == peer_id) {
                let answer = state.disconnects.remove(&peer_id);
                let _ = answer.map(|answer| answer.send(Ok(json!({}))));
            }
        }
        SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
            if let Some(answer) = state.dials.remove(&connection_id) {
                let _ = answer.send(Err(describe_error(&error)));
            }
        }
        SwarmEvent::ListenerClosed { reason: Err(error), addresses, .. } => {
            say(json!({"event": "listener_closed", "why": error.to_string()}));
            let relays: Vec<_> = state.reservations.keys().copied().collect();
            for relay in relays {
                if addresses.is_empty() || addresses.iter().any(|a| a.to_string().contains(&relay.to_string())) {
                    let answer = state.reservations.remove(&relay);
                    let _ = answer.map(|answer| answer.send(Err(describe_error(&error))));
                }
            }
        }
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
            state.identified.insert(peer_id, info);
        }
        SwarmEvent::Behaviour(BehaviourEvent::Dcutr(event)) => {
            let result = event.result.map(|_| "direct".to_string()).unwrap_or_else(|e| describe_error(&e));
            say(json!({"event": "punch", "peer": event.remote_peer_id.to_string(), "detail": result}));
        }
        SwarmEvent::Behaviour(BehaviourEvent::Client(event)) => match event {
            relay::client::Event::ReservationReqAccepted { relay_peer_id, .. } => {
                let answer = state.reservations.remove(&relay_peer_id);
                let _ = answer.map(|answer| answer.send(Ok(describe_limit(Some(&event)))));
            }
            relay::client::Event::OutboundCircuitEstablished { relay_peer_id, .. } => {
                // It may come after the connection that it belongs to.
                let text = relay_peer_id.to_string();
                match state.connections.iter_mut().rev().find(|conn| {
                    relayed(&conn.addr) && conn.limit.is_none() && conn.addr.to_string().contains(&text)
                }) {
                    Some(conn) => conn.limit = Some(event),
                    None => drop(state.circuits.insert(relay_peer_id, event)),
                }
            }
            relay::client::Event::InboundCircuitEstablished { .. } => {}
        },
        _ => {}
    }
}

fn relayed(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The circuit that was opened for a connection through this relayed address.
fn through(state: &mut State, addr: &Multiaddr) -> Option<relay::client::Event> {
    let relay = addr.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    })?;
    state.circuits.remove(&relay)
}

fn describe(conn: &Connection) -> Value {
    let mut found = describe_limit(conn.limit.as_ref());
    found["addr"] = json!(conn.addr.to_string());
    found["relayed"] = json!(relayed(&conn.addr));
    found
}

/// The terms in an event of the relay's client; their own type has no public name.
fn describe_limit(event: Option<&relay::client::Event>) -> Value {
    use relay::client::Event::*;
    let limit = event.and_then(|event| match event {
        ReservationReqAccepted { limit, .. }
        | OutboundCircuitEstablished { limit, .. }
        | InboundCircuitEstablished { limit, .. } => limit.as_ref(),
    });
    let seconds = limit.and_then(|limit| limit.duration()).map_or(0, |duration| duration.as_secs());
    let bytes = limit.and_then(|limit| limit.data_in_bytes()).unwrap_or(0);
    json!({"limited": limit.is_some(), "seconds": seconds, "bytes": bytes})
}
