"""The manager: Raft, store, CA, scheduling and the control API of a cluster.

`main.py` is the composition root. Runs only on managers. Never imports `worker` or `agent_runtime`.
"""
