"""What a backup says of itself. Apart from backup_file.py: a client that makes no backup needs no cryptography."""

from msgspec import Struct


class BackupFacts(Struct, frozen=True):
    """What a backup is of: `version` is the store's, `created_at` in seconds since the epoch."""

    cluster_id: str
    version: int
    created_at: float
    server_version: str
