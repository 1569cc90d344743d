"""Control socket, status, metrics and logs."""
