"""The worker: node supervisor, agent, network. Never imports `manager` or `agent_runtime`."""
