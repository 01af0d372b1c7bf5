"""Registries, references, the content store by digest, layers and overlay snapshots."""
