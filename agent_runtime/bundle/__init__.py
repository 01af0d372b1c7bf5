"""From image config and container config to an OCI `config.json`, validated (pure)."""
