"""The cluster's part of the benchmark: messages between workers, users known to the bus, heartbeats."""
