"""A declarative network appliance that makes Kaspa nodes behind NATs reachable."""

__version__ = "0.1.0"
