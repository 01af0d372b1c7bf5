"""The protocol: what two rooms must agree on. Imports no room.

Wire messages (`v1`), the frozen object model (`model`), pure translations (`codec`), the edge of
gRPC (`rpc`), and the single doors to wall time (`clock`), randomness (`entropy`) and logging (`log`).
What only one room needs does not belong here.
"""
