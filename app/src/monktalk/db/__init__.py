"""The one SQL schema of all programs, its migrations and its engines."""
