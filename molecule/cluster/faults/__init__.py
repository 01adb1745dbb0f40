"""Faults under load: something breaks while clients talk, comes back, and nothing may have been lost or repeated."""
