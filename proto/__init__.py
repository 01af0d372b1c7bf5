"""The protocol: what two rooms must agree on. Imports no room.

Wire messages (`v1`), the frozen object model (`model`), pure translations (`codec`), the edge of
gRPC (`rpc`), and the single doors to wall time (`clock`), randomness (`entropy`) and logging (`log`).
What only one room needs does not belong here.
"""

import os
import sys
from typing import Final

# TLS 1.3 only. Python gRPC cannot set a least version, but its list of TLS 1.2 suites can be one that needs an RSA
# certificate: ours are all ECDSA, so no 1.2 handshake finds a shared cipher. gRPC reads this when it is imported.
_NO_SUITE_OF_TLS_1_2: Final = "AES128-GCM-SHA256"

IS_TLS_1_3_ONLY: Final = (
    "grpc._cython.cygrpc" not in sys.modules or os.environ.get("GRPC_SSL_CIPHER_SUITES") == _NO_SUITE_OF_TLS_1_2
)
"""False when gRPC was imported before this package: `rpc/tls.py` makes no credentials then."""

os.environ["GRPC_SSL_CIPHER_SUITES"] = _NO_SUITE_OF_TLS_1_2

# What a failed call needs to say reaches its caller as an error; a terminal is no place for the core's remarks.
# Daemons that serve TLS read those instead (rpc/core_log.py).
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
