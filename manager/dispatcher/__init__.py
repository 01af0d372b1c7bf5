"""Pure: liveness of nodes, sessions, assignment sets and their increments."""
