"""Real systemd hosts on one machine, for the tests of the appliance; see docs/lab.md."""
