"""Protocol machines without I/O: bytes in, events out; events in, bytes out."""
