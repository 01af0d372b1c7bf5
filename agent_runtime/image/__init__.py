"""Registries, references, the content store by digest, layers and overlay snapshots.

`store.py` is what the daemon uses. `registry.py` speaks the distribution protocol and `pull.py` follows it through an
image; `archive.py` reads saved images; `content.py` keeps verified blobs, `layers.py` unpacks each stack of layers once
by `extract.py`, which reaches files only through `beneath.py`; `references.py` keeps the names. Mounting layers belongs
to `container`, which puts them under an overlay.
"""
