"""The replicated object store: immutable snapshots, indexes, changes and apply (pure); watch and writer (edge)."""
