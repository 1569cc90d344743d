// A js-libp2p peer for the interoperability tests: one host on loopback, driven by JSON lines.
// What each command means is said once, in tests/interop/README.md.

// js-libp2p 3 wants Node 22; this is what it misses on Node 20. It must be there before the imports.
Promise.withResolvers ??= function () {
  const out = {}
  out.promise = new this((resolve, reject) => Object.assign(out, { resolve, reject }))
  return out
}

const { createHash } = await import('node:crypto')
const { createInterface } = await import('node:readline')
const { circuitRelayServer, circuitRelayTransport } = await import('@libp2p/circuit-relay-v2')
const { dcutr } = await import('@libp2p/dcutr')
const { identify, identifyPush } = await import('@libp2p/identify')
const { noise } = await import('@libp2p/noise')
const { ping } = await import('@libp2p/ping')
const { tcp } = await import('@libp2p/tcp')
const { yamux } = await import('@libp2p/yamux')
const { multiaddr } = await import('@multiformats/multiaddr')
const { createLibp2p } = await import('libp2p')
const benching = await import('./bench.mjs')

const ECHO = '/echo/1.0.0'
const DIGEST = '/interop/digest/1.0.0'
const RESET = '/interop/reset/1.0.0'
const DEADLINE = 30_000
const CHUNK = 64 * 1024

const options = JSON.parse(process.argv[2])
const say = message => process.stdout.write(JSON.stringify(message) + '\n')
const sha256 = data => createHash('sha256').update(data).digest('hex')

// What a program needs beside the public interface: listening on a circuit after the start.
let components
const services = {
  identify: identify(),
  identifyPush: identifyPush(),
  ping: ping(),
  inside: found => { components = found; return {} }
}
if (options.dcutr) services.dcutr = dcutr()
if (options.relay != null) {
  const { seconds = 0, bytes = 0, reservation = 0 } = options.relay
  services.relay = circuitRelayServer(options.bench ? benching.relayServer : {
    reservations: {
      applyDefaultLimit: seconds !== 0 || bytes !== 0,
      ...(seconds !== 0 && { defaultDurationLimit: seconds }),
      ...(bytes !== 0 && { defaultDataLimit: BigInt(bytes) }),
      ...(reservation !== 0 && { reservationTtl: reservation * 1000 })
    }
  })
}

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp(), circuitRelayTransport()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionGater: {
    denyDialMultiaddr: addr => !addr.toString().startsWith('/ip4/127.')
  },
  // Its monitor pings every 10 s and would close connections of peers that do not answer.
  connectionMonitor: { enabled: false },
  ...(options.bench && { connectionManager: benching.connectionManager }),
  nodeInfo: { userAgent: 'interop/js-libp2p' },
  services
})

const identified = new Map()
node.addEventListener('peer:identify', ({ detail }) => identified.set(detail.peerId.toString(), detail))

// What a stream brings, to its end. js-libp2p's own iterator waits for ever on a stream whose end
// came before its handler was called, as it does when the other side sends all of it at once.
async function * chunks (stream) {
  const queue = []
  let ended = stream.readableEnded
  let error
  let wake
  const tell = change => event => { change(event); wake?.() }
  stream.addEventListener('end', tell(() => { ended = true }))
  stream.addEventListener('close', tell(event => { ended = true; error = event.error }))
  stream.addEventListener('message', tell(event => queue.push(event.data)))
  while (true) {
    if (queue.length > 0) {
      yield queue.shift()
    } else if (ended) {
      if (error != null) throw error
      return
    } else {
      await new Promise(resolve => { wake = resolve })
    }
  }
}

const anyConnection = { runOnLimitedConnection: true, maxInboundStreams: 64, maxOutboundStreams: 64 }

function served (stream, connection, bytes, ended) {
  say({ event: 'served', protocol: stream.protocol, peer: connection.remotePeer.toString(), bytes, ended })
}

await node.handle(ECHO, async (stream, connection) => {
  let bytes = 0
  try {
    for await (const chunk of chunks(stream)) {
      bytes += chunk.byteLength
      if (!stream.send(chunk)) await stream.onDrain()
    }
    await stream.close()
    served(stream, connection, bytes, 'eof')
  } catch (error) {
    stream.abort(error)
    served(stream, connection, bytes, 'reset')
  }
}, anyConnection)

await node.handle(DIGEST, async (stream, connection) => {
  const hash = createHash('sha256')
  let bytes = 0
  try {
    for await (const chunk of chunks(stream)) {
      bytes += chunk.byteLength
      hash.update(chunk.subarray())
    }
    stream.send(Buffer.from(`${bytes} ${hash.digest('hex')}`))
    await stream.close()
    served(stream, connection, bytes, 'eof')
  } catch (error) {
    stream.abort(error)
    served(stream, connection, bytes, 'reset')
  }
}, anyConnection)

await node.handle(RESET, async stream => {
  for await (const _ of chunks(stream)) break
  stream.abort(new Error('reset on demand'))
}, anyConnection)

// What every peer sends: it shows a lost, repeated or moved block.
function pattern (size) {
  const data = Buffer.alloc(size)
  for (let i = 0; i < size; i++) data[i] = i ^ (i >> 8) ^ (i >> 16)
  return data
}

function connectionsTo (peer) {
  return node.getConnections().filter(conn => conn.remotePeer.toString() === peer && conn.status === 'open')
}

// A direct connection if there is one; waits for one that the peer dialled and is on its way.
async function connectionTo (peer, signal) {
  while (connectionsTo(peer).length === 0) {
    signal.throwIfAborted()
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  return connectionsTo(peer).sort((a, b) => (a.limits != null) - (b.limits != null))[0]
}

function describe (conn) {
  return {
    addr: conn.remoteAddr.toString(),
    relayed: conn.remoteAddr.toString().includes('/p2p-circuit'),
    limited: conn.limits != null,
    seconds: conn.limits?.seconds ?? 0,
    bytes: Number(conn.limits?.bytes ?? 0)
  }
}

async function open (peer, protocol, signal) {
  const connection = await connectionTo(peer, signal)
  return connection.newStream(protocol, { ...anyConnection, signal })
}

async function readAll (stream) {
  const parts = []
  for await (const chunk of chunks(stream)) parts.push(chunk.slice())
  return Buffer.concat(parts)
}

async function write (stream, data, signal) {
  for (let at = 0; at < data.length; at += CHUNK) {
    if (!stream.send(data.subarray(at, at + CHUNK))) await stream.onDrain({ signal })
  }
  await stream.close({ signal })
}

async function send (peer, protocol, size, signal) {
  const stream = await open(peer, protocol, signal)
  try {
    const [got] = await Promise.all([readAll(stream), write(stream, pattern(size), signal)])
    if (protocol === DIGEST) return { answer: got.toString() }
    return { bytes: got.length, sha256: sha256(got) }
  } catch (error) {
    stream.abort(error)
    throw error
  }
}

const commands = {
  async connect ({ addr }, signal) {
    return describe(await node.dial(multiaddr(addr), { signal }))
  },

  async reserve ({ addr }, signal) {
    const relay = await node.dial(multiaddr(addr), { signal })
    await components.transportManager.listen([multiaddr(addr).encapsulate('/p2p-circuit')])
    const store = components.transportManager.getTransports().find(t => t.reservationStore != null).reservationStore
    const granted = store.getReservation(relay.remotePeer)
    if (granted == null) throw new Error('no reservation was made')
    const voucher = granted.voucher?.payload
    return {
      expires: Number(granted.expire),
      addrs: granted.addrs.map(bytes => multiaddr(bytes).toString()),
      voucher: voucher == null ? undefined : {
        relay: Buffer.from(voucher.relay).toString('hex'),
        peer: Buffer.from(voucher.peer).toString('hex'),
        expires: Number(voucher.expiration)
      }
    }
  },

  async connections ({ peer }) {
    return { connections: connectionsTo(peer).map(describe) }
  },

  async disconnect ({ peer }, signal) {
    await Promise.all(connectionsTo(peer).map(conn => conn.close({ signal })))
    return {}
  },

  async identify ({ peer }, signal) {
    while (!identified.has(peer)) {
      signal.throwIfAborted()
      await new Promise(resolve => setTimeout(resolve, 10))
    }
    const found = identified.get(peer)
    return {
      agent: found.agentVersion,
      protocols: found.protocols,
      listen: found.listenAddrs.map(String),
      observed: found.observedAddr?.toString() ?? ''
    }
  },

  async ping ({ peer }, signal) {
    const connection = await connectionTo(peer, signal)
    return { ms: await node.services.ping.ping(connection.remotePeer, { signal }) }
  },

  echo: ({ peer, bytes }, signal) => send(peer, ECHO, bytes, signal),
  digest: ({ peer, bytes }, signal) => send(peer, DIGEST, bytes, signal),

  async reset ({ peer }, signal) {
    const stream = await open(peer, ECHO, signal)
    stream.send(Uint8Array.of(1))
    for await (const _ of chunks(stream)) break
    stream.abort(new Error('reset on demand'))
    return {}
  },

  async be_reset ({ peer }, signal) {
    const stream = await open(peer, RESET, signal)
    stream.send(Uint8Array.of(1))
    try {
      await readAll(stream)
      return { ended: stream.status === 'reset' ? 'reset' : 'eof' }
    } catch (error) {
      if (error.name === 'StreamResetError') return { ended: 'reset' }
      throw error
    }
  },

  async exchange ({ peer, protocol, hex }, signal) {
    const stream = await open(peer, protocol, signal)
    stream.send(Buffer.from(hex, 'hex'))
    const got = await readAll(stream)
    await stream.close({ signal })
    return { hex: got.toString('hex') }
  }
}

if (options.bench) {
  const dial = (addr, signal) => node.dial(multiaddr(addr), { signal })
  const tools = { node, chunks, connectionTo, connectionsTo, dial }
  Object.assign(commands, await benching.bench(tools))
}

say({
  event: 'ready',
  peer: node.peerId.toString(),
  addrs: node.getMultiaddrs().map(String).filter(addr => !addr.includes('/p2p-circuit'))
})

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  const signal = AbortSignal.timeout(DEADLINE)
  Promise.resolve()
    .then(() => {
      if (!Object.hasOwn(commands, command.do)) throw new Error(`unknown command ${command.do}`)
      return commands[command.do](command, signal)
    })
    .then(
      result => say({ ...result, id: command.id }),
      // Waiting for an event that an end cuts short throws the event, which has only a type.
      error => say({ id: command.id, error: `${error.name ?? error.type}: ${error.message ?? error.error} ${(error.errors ?? []).join('; ')}` })
    )
}
await node.stop()
process.exit(0)
