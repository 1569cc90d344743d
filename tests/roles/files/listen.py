"""Listens on every ADDRESS,PORT given and never answers: what a port scan calls open."""

import signal
import socket
import sys

held = []
for place in sys.argv[1:]:
    address, _, port = place.partition(",")
    six = ":" in address
    held.append(
        socket.create_server(
            (address, int(port)),
            family=socket.AF_INET6 if six else socket.AF_INET,
            dualstack_ipv6=six,
            backlog=1024,
        )
    )
signal.pause()
