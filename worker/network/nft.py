"""One door to the packet filter: scripts through libnftables, each one transaction. No process is started."""

import ctypes

from pyswarm.proto.errors import FailedPrecondition, Internal


class PacketFilter:
    """A context of libnftables; not for several threads at once."""

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            raise FailedPrecondition(
                f"libnftables is not installed: {error}", remedy="Install it: `apt-get install libnftables1`."
            ) from error
        self._lib.nft_ctx_new.restype = ctypes.c_void_p
        self._lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_free"):
            getattr(self._lib, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(self._lib, name).argtypes = [ctypes.c_void_p]
            getattr(self._lib, name).restype = ctypes.c_char_p
        self._lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._context = self._lib.nft_ctx_new(0)
        self._lib.nft_ctx_buffer_error(self._context)
        self._lib.nft_ctx_buffer_output(self._context)

    def run(self, script: str) -> str:
        """Run an nft script wholly or not at all and return its output. Raises Internal with nft's message."""
        status = self._lib.nft_run_cmd_from_buffer(self._context, script.encode())
        output: bytes = self._lib.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = self._lib.nft_ctx_get_error_buffer(self._context) or b""
        if status != 0:
            raise Internal(f"nft refused the node's rules: {error.decode(errors='replace').strip()}")
        return output.decode()

    def close(self) -> None:
        if self._context:
            self._lib.nft_ctx_free(self._context)
            self._context = None
