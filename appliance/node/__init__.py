"""The Kaspa node beside us: the embedded node and what it speaks."""
