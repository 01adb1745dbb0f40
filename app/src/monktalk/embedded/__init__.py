"""The supervisor behind `make run`: one command, a whole server in a directory."""
