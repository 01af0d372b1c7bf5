"""PySyncObj made safe: the core between a guard that sees every message and a journal that syncs before it promises.

`engine.py` is what the manager uses (`port.Consensus`). `guard.py` judges messages, `journal.py` and `snapshots.py` keep the disk,
`streams.py` is the network, `wire.py` and `commands.py` are formats. Nothing else of the manager imports from here.
"""
