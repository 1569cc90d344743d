"""Decisions without I/O: every answer carries a reason; time and chance are arguments."""
