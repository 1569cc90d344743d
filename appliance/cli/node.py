"""`appliance node`: the embedded Kaspa node by itself.

Imports no libp2p, so that a laboratory can afford many of these.
"""

from __future__ import annotations

import argparse
import ipaddress
import signal

import trio

from appliance.errors import ApplianceError
from appliance.network import Endpoint, Network
from appliance.node.embedded import STOCK_RETRY, EmbeddedNode
from appliance.operate import logs
from appliance.wire.kaspa_messages import NetAddress

HELP = "the embedded Kaspa node by itself, for labs and tests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "--network", choices=[network.value for network in Network], default=Network.MAINNET.value
    )
    parser.add_argument(
        "--listen",
        type=_endpoint,
        metavar="IP:PORT",
        help="default: 127.0.0.1 and the network's P2P port; port 0 takes a free one",
    )
    parser.add_argument(
        "--addpeer",
        type=_endpoint,
        action="append",
        default=[],
        metavar="IP:PORT",
        help="a peer to dial, for ever; may be given several times",
    )
    parser.add_argument(
        "--known",
        type=_endpoint,
        action="append",
        default=[],
        metavar="IP:PORT",
        help="an address to pass on to peers that ask; may be given several times",
    )
    parser.add_argument(
        "--retry",
        type=_seconds,
        default=STOCK_RETRY,
        metavar="SECONDS",
        help="wait before dialling a lost peer again (default: %(default)g, as kaspad; doubled, "
        "up to 16 times, while dials fail)",
    )
    parser.add_argument(
        "--lab-payload",
        type=_count,
        default=0,
        metavar="BYTES",
        help="pass this many checked bytes to every dialled node that has the option, too",
    )
    parser.add_argument("--log-format", choices=logs.FORMATS, default="auto")
    parser.add_argument("--log-level", choices=list(logs.LEVELS), default="info")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM. Raises ApplianceError if the port is taken."""
    logs.configure(args.log_level, args.log_format)
    network = Network(args.network)
    node = EmbeddedNode(
        network,
        args.listen or Endpoint("127.0.0.1", network.p2p_port),
        args.addpeer,
        lab_payload=args.lab_payload,
        retry=args.retry,
        known=[
            NetAddress(ip=ipaddress.ip_address(address.host), port=address.port)
            for address in args.known
        ],
    )
    trio.run(_serve, node)
    return 0


async def _serve(node: EmbeddedNode) -> None:
    failure: ApplianceError | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(node.run)
            except ApplianceError as error:
                failure = error  # raised outside, since a nursery would wrap it in a group
            else:
                await anext(signals)
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _endpoint(text: str) -> Endpoint:
    try:
        return Endpoint.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 3600 seconds")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 1 << 40:
        raise argparse.ArgumentTypeError("must be from 0 to 1 TiB")
    return value
