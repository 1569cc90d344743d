// The part of the benchmarks: what the verbs mean is said in tests/interop/README.md.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

const SINK = '/bench/sink/1.0.0'
const SMALL = '/bench/echo/1.0.0'
const READY = Buffer.from('+')
const WRITE_SIZE = 64 * 1024
const SMALL_SIZE = 64
const CONNECT = 10_000 // ms
// More than any benchmark has of anything.
const EVERYBODY = 1 << 20

// Settings that lift the limits which protect a host from strangers; windows stay the default.
export const connectionManager = {
  maxConnections: EVERYBODY,
  maxIncomingPendingConnections: EVERYBODY,
  inboundConnectionThreshold: EVERYBODY
}
export const relayServer = {
  maxInboundHopStreams: EVERYBODY,
  maxOutboundHopStreams: EVERYBODY,
  maxOutboundStopStreams: EVERYBODY,
  reservations: { maxReservations: EVERYBODY, applyDefaultLimit: false }
}
const anyStream = {
  runOnLimitedConnection: true, maxInboundStreams: EVERYBODY, maxOutboundStreams: EVERYBODY
}

// How to wait until a stream has room for one more write. js-libp2p's own `onDrain` keeps its first
// promise for ever and waits only once; its `drain` comes to every stream when the connection drains,
// also to those whose window is used up, so the stream's own backlog is looked at as well.
function room (stream) {
  let wake
  let error
  for (const name of ['drain', 'idle']) stream.addEventListener(name, () => wake?.resolve())
  stream.addEventListener('close', event => {
    error = event.error ?? new Error('the stream was closed')
    wake?.resolve()
  })
  return async () => {
    while (error == null && (stream.writableNeedsDrain || stream.writeBufferLength >= WRITE_SIZE)) {
      wake = Promise.withResolvers()
      await wake.promise
    }
    if (error != null) throw error
  }
}

// Reads of a given size from what `chunks` yields.
function sized (source) {
  let buffer = Buffer.alloc(0)
  return async size => {
    while (buffer.length < size) {
      const { value, done } = await source.next()
      if (done) return null
      buffer = Buffer.concat([buffer, value.subarray()])
    }
    const data = buffer.subarray(0, size)
    buffer = buffer.subarray(size)
    return data
  }
}

// Registers what others use, and returns the verbs. It is given the program's own helpers.
export async function bench ({ node, chunks, connectionTo, connectionsTo, dial }) {
  const sinks = []
  let flood

  await node.handle(SINK, async stream => {
    const sunk = { bytes: 0 }
    sinks.push(sunk)
    try {
      stream.send(READY)
      await new Promise((resolve, reject) => {
        stream.addEventListener('end', resolve)
        stream.addEventListener('close', ({ error }) => error == null ? resolve() : reject(error))
        stream.addEventListener('message', ({ data }) => { sunk.bytes += data.byteLength })
        if (stream.readableEnded) resolve()
      })
      stream.send(Buffer.from(String(sunk.bytes)))
      await stream.close()
    } catch (error) {
      stream.abort(error)
    }
  }, anyStream)

  await node.handle(SMALL, async stream => {
    try {
      const read = sized(chunks(stream))
      let data
      while ((data = await read(SMALL_SIZE)) != null) {
        stream.send(data)
      }
      await stream.close()
    } catch (error) {
      stream.abort(error)
    }
  }, anyStream)

  // A stream to a sink that has said that it is there, and the answer that it will end with.
  async function openSink (connection, signal) {
    const stream = await connection.newStream(SINK, { ...anyStream, signal })
    const source = chunks(stream)
    const read = sized(source)
    if (await read(READY.length) == null) throw new Error('the sink ended early')
    return { stream, reading: readRest(source) }
  }

  async function readRest (source) {
    const parts = []
    for await (const chunk of source) parts.push(chunk.slice())
    return Buffer.concat(parts)
  }

  async function fill ({ stream, reading }) {
    const data = Buffer.alloc(WRITE_SIZE)
    const enoughRoom = room(stream)
    try {
      while (!flood.stop) {
        flood.sent += data.length
        if (!stream.send(data)) await enoughRoom()
      }
      await stream.close()
      const answer = (await reading).toString()
      flood.confirmed += Number(answer)
    } catch (error) {
      stream.abort(error)
      reading.catch(() => {}) // it fails for the same reason
      throw error
    }
  }

  // Without the command's signal: it would gather the listeners of every stream opened so far.
  async function openSmall (connection) {
    const stream = await connection.newStream(SMALL, anyStream)
    return { stream, read: sized(chunks(stream)) }
  }

  async function exchange ({ stream, read }) {
    stream.send(Buffer.alloc(SMALL_SIZE))
    if (await read(SMALL_SIZE) == null) throw new Error('the echo ended early')
  }

  // Runs `body` so many times, or for so long; microseconds of each. What it returns is closed.
  async function timed ({ count, seconds }, body) {
    const us = []
    const until = performance.now() + seconds * 1000
    while (us.length < count && performance.now() < until) {
      const began = performance.now()
      const opened = await body()
      us.push(Math.round((performance.now() - began) * 1000))
      await opened?.close()
    }
    return { us }
  }

  return {
    async flood ({ peer, streams }, signal) {
      const connection = await connectionTo(peer, signal)
      flood = { stop: false, sent: 0, confirmed: 0, ended: null }
      const opened = []
      for (let i = 0; i < streams; i++) {
        opened.push(await openSink(connection, signal))
      }
      flood.ended = Promise.all(opened.map(fill))
      flood.ended.catch(() => {}) // it is told by `ebb`
      return {}
    },

    async ebb (_, signal) {
      flood.stop = true
      await Promise.race([
        flood.ended,
        new Promise((_resolve, reject) => { signal.onabort = () => reject(signal.reason) })
      ])
      return { sent: flood.sent, confirmed: flood.confirmed }
    },

    async sunk () {
      return { at: performance.now() / 1000, bytes: sinks.map(sunk => sunk.bytes) }
    },

    async rtt ({ peer, fresh, ...howMany }, signal) {
      const connection = await connectionTo(peer, signal)
      if (fresh) {
        return timed(howMany, async () => {
          const opened = await openSmall(connection)
          await exchange(opened)
          return opened.stream
        })
      }
      const standing = await openSmall(connection)
      const result = await timed(howMany, () => exchange(standing))
      await standing.stream.close()
      return result
    },

    async cycle ({ addr, ...howMany }) {
      return timed(howMany, async () => {
        const connection = await dial(addr, AbortSignal.timeout(CONNECT))
        await exchange(await openSmall(connection))
        await Promise.all(connectionsTo(connection.remotePeer.toString())
          .map(conn => conn.close()))
      })
    },

    async settle () {
      setFlagsFromString('--expose_gc')
      runInNewContext('gc')()
      return {}
    }
  }
}
