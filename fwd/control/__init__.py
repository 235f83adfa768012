"""From a node file to table rows, and the daemon that keeps them (agent.py)."""
