// A go-libp2p peer for the interoperability tests: one host on loopback, driven by JSON lines.
// What each command means is said once, in tests/interop/README.md.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	echo   = protocol.ID("/echo/1.0.0")
	digest = protocol.ID("/interop/digest/1.0.0")
	reset  = protocol.ID("/interop/reset/1.0.0")

	deadline = 30 * time.Second
)

type relayOptions struct {
	Seconds     int64 `json:"seconds"`
	Bytes       int64 `json:"bytes"`
	Reservation int64 `json:"reservation"`
}

type options struct {
	Relay *relayOptions `json:"relay"`
	Dcutr bool          `json:"dcutr"`
	Bench bool          `json:"bench"`
}

type command struct {
	ID       int     `json:"id"`
	Do       string  `json:"do"`
	Addr     string  `json:"addr"`
	Peer     string  `json:"peer"`
	Bytes    int     `json:"bytes"`
	Streams  int     `json:"streams"`
	Protocol string  `json:"protocol"`
	Hex      string  `json:"hex"`
	Agreed   bool    `json:"agreed"`
	Count    int     `json:"count"`
	Seconds  float64 `json:"seconds"`
	Fresh    bool    `json:"fresh"`
}

type reply map[string]any

// node is the host and what the commands need beside it.
type node struct {
	host  host.Host
	bench *bench
	mu    sync.Mutex
	// identified keeps the last identify answer of each peer.
	identified map[peer.ID]event.EvtPeerIdentificationCompleted
}

var output sync.Mutex

func say(message reply) {
	output.Lock()
	defer output.Unlock()
	line, err := json.Marshal(message)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

func main() {
	var opts options
	if err := json.Unmarshal([]byte(os.Args[1]), &opts); err != nil {
		panic(err)
	}
	n, err := start(opts)
	if err != nil {
		panic(err)
	}
	defer n.host.Close()
	addrs := []string{}
	for _, addr := range n.host.Network().ListenAddresses() {
		if manet.IsIPLoopback(addr) {
			addrs = append(addrs, addr.String())
		}
	}
	say(reply{"event": "ready", "peer": n.host.ID().String(), "addrs": addrs})

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var cmd command
		if err := json.Unmarshal(lines.Bytes(), &cmd); err != nil {
			panic(err)
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			result, err := n.perform(ctx, cmd)
			if err != nil {
				result = reply{"error": err.Error()}
			}
			result["id"] = cmd.ID
			say(result)
		}()
	}
}

func start(opts options) (*node, error) {
	setup := []libp2p.Option{
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.NoTransports, libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.UserAgent("interop/go-libp2p"),
		libp2p.ConnectionGater(loopbackOnly{}),
		libp2p.DisableMetrics(),
	}
	if opts.Bench {
		setup = append(setup, benchOptions()...)
	}
	if opts.Dcutr {
		setup = append(setup,
			// It punches only when it believes to have a public address, so it is given one
			// that nobody can dial; what it tells the other side is the loopback one.
			libp2p.AddrsFactory(func(addrs []ma.Multiaddr) []ma.Multiaddr {
				return append(addrs, ma.StringCast("/dns4/peer.example/tcp/1"))
			}),
			libp2p.EnableHolePunching(
				holepunch.WithAddrFilter(&loopbackAddrs{}), holepunch.WithTracer(punches{})),
		)
	}
	h, err := libp2p.New(setup...)
	if err != nil {
		return nil, err
	}
	listening = h.Network().ListenAddresses
	n := &node{host: h, identified: map[peer.ID]event.EvtPeerIdentificationCompleted{}}
	if opts.Bench {
		n.bench = newBench(n)
	}
	subscription, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return nil, err
	}
	go func() {
		for item := range subscription.Out() {
			found := item.(event.EvtPeerIdentificationCompleted)
			n.mu.Lock()
			n.identified[found.Peer] = found
			n.mu.Unlock()
		}
	}()
	h.SetStreamHandler(echo, func(s network.Stream) {
		count, err := io.Copy(s, s)
		served(s, count, err)
	})
	h.SetStreamHandler(digest, func(s network.Stream) {
		hash := sha256.New()
		count, err := io.Copy(hash, s)
		if err == nil {
			_, err = fmt.Fprintf(s, "%d %x", count, hash.Sum(nil))
		}
		served(s, count, err)
	})
	h.SetStreamHandler(reset, func(s network.Stream) {
		io.ReadFull(s, make([]byte, 1))
		s.Reset()
	})
	if opts.Relay != nil {
		resources := relay.DefaultResources()
		resources.Limit = nil
		if opts.Relay.Seconds != 0 || opts.Relay.Bytes != 0 {
			resources.Limit = &relay.RelayLimit{
				Duration: time.Duration(opts.Relay.Seconds) * time.Second, Data: opts.Relay.Bytes,
			}
		}
		if opts.Relay.Reservation != 0 {
			resources.ReservationTTL = time.Duration(opts.Relay.Reservation) * time.Second
		}
		if opts.Bench {
			unlimited(&resources)
		}
		everything := func(ma.Multiaddr) bool { return true }
		_, err = relay.New(
			h, relay.WithResources(resources), relay.WithReservationAddressFilter(everything))
	}
	return n, err
}

func served(s network.Stream, count int64, err error) {
	ended := "eof"
	if err != nil {
		ended = "reset"
		s.Reset()
	}
	s.Close()
	say(reply{
		"event": "served", "protocol": s.Protocol(), "peer": s.Conn().RemotePeer().String(),
		"bytes": count, "ended": ended,
	})
}

func (n *node) perform(ctx context.Context, cmd command) (reply, error) {
	var id peer.ID
	if cmd.Peer != "" {
		decoded, err := peer.Decode(cmd.Peer)
		if err != nil {
			return nil, err
		}
		id = decoded
	}
	// A limited connection serves every command as well.
	ctx = network.WithAllowLimitedConn(ctx, "interop")
	if id != "" && cmd.Do != "connections" {
		if err := n.connected(ctx, id); err != nil {
			return nil, err
		}
	}
	switch cmd.Do {
	case "connect":
		return n.connect(ctx, cmd.Addr)
	case "reserve":
		return n.reserve(ctx, cmd.Addr)
	case "connections":
		found := []reply{}
		for _, conn := range n.host.Network().ConnsToPeer(id) {
			found = append(found, describe(conn))
		}
		return reply{"connections": found}, nil
	case "disconnect":
		return reply{}, n.host.Network().ClosePeer(id)
	case "identify":
		return n.identify(ctx, id)
	case "ping":
		result := <-ping.Ping(ctx, n.host, id)
		return reply{"ms": float64(result.RTT.Microseconds()) / 1000}, result.Error
	case "echo":
		return n.send(ctx, id, echo, cmd)
	case "digest":
		return n.send(ctx, id, digest, cmd)
	case "burst":
		return n.burst(ctx, id, cmd)
	case "reset":
		return n.reset(ctx, id)
	case "be_reset":
		return n.beReset(ctx, id)
	case "exchange":
		return n.exchange(ctx, id, protocol.ID(cmd.Protocol), cmd.Hex)
	}
	if n.bench != nil {
		return n.bench.perform(ctx, id, cmd)
	}
	return nil, fmt.Errorf("unknown command %q", cmd.Do)
}

// connected waits for a connection: one that the peer dialled may be on its way.
func (n *node) connected(ctx context.Context, id peer.ID) error {
	for len(n.host.Network().ConnsToPeer(id)) == 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

func (n *node) connect(ctx context.Context, addr string) (reply, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return nil, err
	}
	if _, err := info.Addrs[0].ValueForProtocol(ma.P_CIRCUIT); err == nil {
		// It would dial what it knows of the peer from an earlier connection as well.
		n.host.Peerstore().ClearAddrs(info.ID)
	}
	if err := n.host.Connect(ctx, *info); err != nil {
		return nil, err
	}
	conns := n.host.Network().ConnsToPeer(info.ID)
	if len(conns) == 0 {
		return nil, errors.New("the connection is gone already")
	}
	return describe(conns[len(conns)-1]), nil
}

func describe(conn network.Conn) reply {
	stat := conn.Stat()
	_, err := conn.RemoteMultiaddr().ValueForProtocol(ma.P_CIRCUIT)
	seconds, _ := stat.Extra[client.StatLimitDuration].(time.Duration)
	data, _ := stat.Extra[client.StatLimitData].(uint64)
	return reply{
		"addr": conn.RemoteMultiaddr().String(), "relayed": err == nil, "limited": stat.Limited,
		"seconds": int64(seconds / time.Second), "bytes": data,
	}
}

func (n *node) reserve(ctx context.Context, addr string) (reply, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return nil, err
	}
	granted, err := client.Reserve(ctx, n.host, *info)
	if err != nil {
		return nil, err
	}
	addrs := []string{}
	for _, addr := range granted.Addrs {
		addrs = append(addrs, addr.String())
	}
	result := reply{
		"expires": granted.Expiration.Unix(), "addrs": addrs,
		"seconds": int64(granted.LimitDuration / time.Second), "bytes": granted.LimitData,
	}
	if granted.Voucher != nil { // its signature was checked by Reserve
		result["voucher"] = reply{
			"relay":   hex.EncodeToString([]byte(granted.Voucher.Relay)),
			"peer":    hex.EncodeToString([]byte(granted.Voucher.Peer)),
			"expires": granted.Voucher.Expiration.Unix(),
		}
	}
	return result, nil
}

func (n *node) identify(ctx context.Context, id peer.ID) (reply, error) {
	for {
		n.mu.Lock()
		found, ok := n.identified[id]
		n.mu.Unlock()
		if ok {
			listen := []string{}
			for _, addr := range found.ListenAddrs {
				listen = append(listen, addr.String())
			}
			result := reply{
				"agent": found.AgentVersion, "protocols": found.Protocols, "listen": listen,
				"observed": "",
			}
			if found.ObservedAddr != nil {
				result["observed"] = found.ObservedAddr.String()
			}
			return result, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// pattern is what every peer sends: it shows a lost, repeated or moved block.
func pattern(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return data
}

// open is a stream with a deadline.
func (n *node) open(ctx context.Context, id peer.ID, proto protocol.ID) (network.Stream, error) {
	s, err := n.host.NewStream(ctx, id, proto)
	if err != nil {
		return nil, err
	}
	if until, ok := ctx.Deadline(); ok {
		s.SetDeadline(until)
	}
	return s, nil
}

// send writes the pattern while it reads, half-closes, and reads to the end.
func (n *node) send(
	ctx context.Context, id peer.ID, proto protocol.ID, cmd command,
) (reply, error) {
	if cmd.Agreed { // a protocol that it does not know of yet is negotiated first
		n.host.Peerstore().RemoveProtocols(id, proto)
	}
	s, err := n.open(ctx, id, proto)
	if err != nil {
		return nil, err
	}
	writing := make(chan error, 1)
	go func() {
		_, err := s.Write(pattern(cmd.Bytes))
		if err == nil {
			err = s.CloseWrite()
		}
		writing <- err
	}()
	got, err := io.ReadAll(s)
	if err != nil {
		s.Reset()
		return nil, fmt.Errorf("after %d bytes: %w", len(got), err)
	}
	if err := <-writing; err != nil {
		s.Reset()
		return nil, err
	}
	s.Close()
	if proto == digest {
		return reply{"answer": string(got)}, nil
	}
	return reply{"bytes": len(got), "sha256": fmt.Sprintf("%x", sha256.Sum256(got))}, nil
}

// burst opens many streams at once, each from a goroutine of its own.
func (n *node) burst(ctx context.Context, id peer.ID, cmd command) (reply, error) {
	results := make(chan error, cmd.Streams)
	for range cmd.Streams {
		go func() {
			_, err := n.send(ctx, id, echo, cmd)
			results <- err
		}()
	}
	for range cmd.Streams {
		if err := <-results; err != nil {
			return nil, err
		}
	}
	return reply{}, nil
}

func (n *node) reset(ctx context.Context, id peer.ID) (reply, error) {
	s, err := n.open(ctx, id, echo)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if _, err := s.Write([]byte{1}); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(s, make([]byte, 1))
	return reply{}, err
}

func (n *node) beReset(ctx context.Context, id peer.ID) (reply, error) {
	s, err := n.open(ctx, id, reset)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if _, err := s.Write([]byte{1}); err != nil {
		return nil, err
	}
	_, err = io.ReadAll(s)
	switch {
	case err == nil:
		return reply{"ended": "eof"}, nil
	case errors.Is(err, network.ErrReset):
		return reply{"ended": "reset"}, nil
	}
	return nil, err
}

func (n *node) exchange(
	ctx context.Context, id peer.ID, proto protocol.ID, request string,
) (reply, error) {
	data, err := hex.DecodeString(request)
	if err != nil {
		return nil, err
	}
	s, err := n.open(ctx, id, proto)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if _, err := s.Write(data); err != nil {
		return nil, err
	}
	got, err := io.ReadAll(s)
	return reply{"hex": hex.EncodeToString(got)}, err
}

// loopbackOnly keeps the host from dialling anything but this machine.
type loopbackOnly struct{}

func (loopbackOnly) InterceptPeerDial(peer.ID) bool { return true }
func (loopbackOnly) InterceptAddrDial(_ peer.ID, addr ma.Multiaddr) bool {
	return manet.IsIPLoopback(addr)
}
func (loopbackOnly) InterceptAccept(network.ConnMultiaddrs) bool { return true }
func (loopbackOnly) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}
func (loopbackOnly) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) {
	return true, 0
}

// listening is set once, when the host stands.
var listening func() []ma.Multiaddr

// loopbackAddrs replaces the addresses that a punch announces.
type loopbackAddrs struct{}

func (*loopbackAddrs) FilterLocal(peer.ID, []ma.Multiaddr) []ma.Multiaddr {
	return ma.FilterAddrs(listening(), manet.IsIPLoopback)
}
func (*loopbackAddrs) FilterRemote(_ peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr { return addrs }

// punches reports what the hole punch service does.
type punches struct{}

func (punches) Trace(evt *holepunch.Event) {
	say(reply{"event": "punch", "type": evt.Type, "peer": evt.Remote.String(), "detail": evt.Evt})
}
