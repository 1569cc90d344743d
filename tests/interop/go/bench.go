package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
)

// The part of the benchmarks: what the verbs mean is said in tests/interop/README.md.
const (
	sink  = protocol.ID("/bench/sink/1.0.0")
	small = protocol.ID("/bench/echo/1.0.0")

	ready     = "+"
	writeSize = 64 * 1024
	smallSize = 64
	// everybody is more than any benchmark has of anything.
	everybody = 1 << 20
)

var started = time.Now()

// bench is what the benchmark verbs keep between two commands.
type bench struct {
	node *node

	mu    sync.Mutex
	sinks []*atomic.Int64 // one a stream, in the order of arrival
	flood *flood
}

// flood is a set of streams that are being written to.
type flood struct {
	stop      atomic.Bool
	streams   sync.WaitGroup
	sent      atomic.Int64
	confirmed atomic.Int64
	failed    chan error
}

// benchOptions lift the limits that protect a host from strangers.
func benchOptions() []libp2p.Option {
	return []libp2p.Option{
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
	}
}

// unlimited lifts the relay's; its buffer stays what it is by default.
func unlimited(resources *relay.Resources) {
	resources.Limit = nil
	resources.MaxReservations = everybody
	resources.MaxReservationsPerPeer = everybody
	resources.MaxReservationsPerIP = everybody
	resources.MaxReservationsPerASN = everybody
	resources.MaxCircuits = everybody
}

func newBench(n *node) *bench {
	b := &bench{node: n}
	n.host.SetStreamHandler(sink, b.serveSink)
	n.host.SetStreamHandler(small, b.serveSmall)
	return b
}

func (b *bench) serveSink(s network.Stream) {
	count := new(atomic.Int64)
	b.mu.Lock()
	b.sinks = append(b.sinks, count)
	b.mu.Unlock()
	if _, err := io.WriteString(s, ready); err != nil {
		s.Reset()
		return
	}
	buffer := make([]byte, writeSize)
	for {
		n, err := s.Read(buffer)
		count.Add(int64(n))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.Reset()
			return
		}
	}
	fmt.Fprint(s, count.Load())
	s.Close()
}

func (b *bench) serveSmall(s network.Stream) {
	defer s.Close()
	buffer := make([]byte, smallSize)
	for {
		if _, err := io.ReadFull(s, buffer); err != nil {
			return
		}
		if _, err := s.Write(buffer); err != nil {
			return
		}
	}
}

func (b *bench) perform(ctx context.Context, id peer.ID, cmd command) (reply, error) {
	switch cmd.Do {
	case "flood":
		return b.startFlood(ctx, id, cmd.Streams)
	case "ebb":
		return b.endFlood(ctx)
	case "sunk":
		return b.sunk(), nil
	case "rtt":
		return b.rtt(ctx, id, cmd)
	case "cycle":
		return b.cycle(ctx, cmd)
	case "settle":
		runtime.GC()
		debug.FreeOSMemory()
		return reply{"tasks": runtime.NumGoroutine()}, nil
	}
	return nil, fmt.Errorf("unknown command %q", cmd.Do)
}

func (b *bench) startFlood(ctx context.Context, id peer.ID, streams int) (reply, error) {
	opened := []network.Stream{}
	for range streams {
		s, err := b.node.host.NewStream(ctx, id, sink)
		if err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(s, make([]byte, len(ready))); err != nil {
			return nil, err
		}
		opened = append(opened, s)
	}
	f := &flood{failed: make(chan error, streams)}
	b.flood = f
	for _, s := range opened {
		f.streams.Add(1)
		go func() {
			defer f.streams.Done()
			if err := f.fill(s); err != nil {
				s.Reset()
				f.failed <- err
			}
		}()
	}
	return reply{}, nil
}

func (f *flood) fill(s network.Stream) error {
	data := make([]byte, writeSize)
	for !f.stop.Load() {
		n, err := s.Write(data)
		f.sent.Add(int64(n))
		if err != nil {
			return err
		}
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(s)
	if err != nil {
		return err
	}
	count, err := strconv.ParseInt(string(answer), 10, 64)
	f.confirmed.Add(count)
	s.Close()
	return err
}

func (b *bench) endFlood(ctx context.Context) (reply, error) {
	f := b.flood
	f.stop.Store(true)
	over := make(chan struct{})
	go func() {
		f.streams.Wait()
		close(over)
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-over:
	}
	select {
	case err := <-f.failed:
		return nil, err
	default:
		return reply{"sent": f.sent.Load(), "confirmed": f.confirmed.Load()}, nil
	}
}

func (b *bench) sunk() reply {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := make([]int64, len(b.sinks))
	for i, count := range b.sinks {
		counts[i] = count.Load()
	}
	return reply{"at": time.Since(started).Seconds(), "bytes": counts}
}

func (b *bench) rtt(ctx context.Context, id peer.ID, cmd command) (reply, error) {
	taken := []int64{}
	until := time.Now().Add(time.Duration(cmd.Seconds * float64(time.Second)))
	var s network.Stream
	for len(taken) < cmd.Count && time.Now().Before(until) {
		began := time.Now()
		if s == nil || cmd.Fresh {
			opened, err := b.node.host.NewStream(ctx, id, small)
			if err != nil {
				return nil, err
			}
			s = opened
			defer s.Close()
		}
		if err := exchangeSmall(s); err != nil {
			return nil, err
		}
		taken = append(taken, time.Since(began).Microseconds())
		if cmd.Fresh {
			s.Close()
		}
	}
	return reply{"us": taken}, nil
}

func exchangeSmall(s network.Stream) error {
	data := make([]byte, smallSize)
	if _, err := s.Write(data); err != nil {
		return err
	}
	_, err := io.ReadFull(s, data)
	return err
}

func (b *bench) cycle(ctx context.Context, cmd command) (reply, error) {
	info, err := peer.AddrInfoFromString(cmd.Addr)
	if err != nil {
		return nil, err
	}
	taken := []int64{}
	until := time.Now().Add(time.Duration(cmd.Seconds * float64(time.Second)))
	for len(taken) < cmd.Count && time.Now().Before(until) {
		began := time.Now()
		if err := b.node.host.Connect(ctx, *info); err != nil {
			return nil, err
		}
		s, err := b.node.host.NewStream(ctx, info.ID, small)
		if err != nil {
			return nil, err
		}
		if err := exchangeSmall(s); err != nil {
			return nil, err
		}
		if err := b.node.host.Network().ClosePeer(info.ID); err != nil {
			return nil, err
		}
		taken = append(taken, time.Since(began).Microseconds())
	}
	return reply{"us": taken}, nil
}
