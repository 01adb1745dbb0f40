"""Several workers on one node: a small process that starts them, watches them, and has them reload and stop together."""
