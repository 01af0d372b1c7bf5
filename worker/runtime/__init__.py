"""The runtime as the agent needs it: `port.py`, and `client.py` speaking gRPC to agent_runtime."""
