"""The HTTP API on a unix socket, and its stdlib-only client."""
