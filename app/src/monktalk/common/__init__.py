"""What every program of MonkTalk shares: configuration, logging, JIDs, clock, metrics, sd_notify."""
