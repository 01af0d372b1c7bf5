"""A container's life: state, spawner protocol, stdio, logs, exit records."""
