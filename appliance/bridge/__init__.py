"""The trio shell around libp2p: host, relay service, reservations, puncher, slots."""
