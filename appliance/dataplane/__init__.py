"""Secure channel, multiplexer and pipes: how a byte travels."""
