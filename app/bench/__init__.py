"""The benchmark: one load generator against MonkTalk, ejabberd and Prosody, on one core each."""
