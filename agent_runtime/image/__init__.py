"""Registries, references, the content store by digest, layers and overlay snapshots.

`registry.py` speaks the distribution protocol, `content.py` keeps verified blobs, `extract.py` writes a layer's tar
without ever leaving its directory, `layers.py` unpacks each stack of layers once, `archive.py` reads saved images,
`store.py` is what the daemon uses. Mounting layers belongs to `container`, which puts them under an overlay.
"""
