"""Storage interfaces and their back ends."""
