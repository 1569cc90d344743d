"""The capability-aware address book and its RocksDB store."""
