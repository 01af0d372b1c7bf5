"""Sealing of bytes at rest: data keys, their wrapping key, AEAD frames."""
