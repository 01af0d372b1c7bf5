"""This node's certificate: renewed at a random moment of its life's second half, and at once when the role changes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography import x509

from pyswarm.proto.backoff import Backoff
from pyswarm.proto.certificate_files import replace_certificates, write_certificates
from pyswarm.proto.clock import Clock
from pyswarm.proto.csr import make_csr
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.identity import NodeIdentity, identity_of
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.client import ManagerPool
from pyswarm.proto.rpc.tls import CERTIFICATE
from pyswarm.proto.v1 import ca_pb2, ca_pb2_grpc

log = get_logger(__name__)

EARLIEST, LATEST = 0.5, 0.8
"""A renewal falls at a random part of the validity, so that nodes do not all come at once (swarm mistake 56)."""

BACKOFF = Backoff(first_seconds=5.0, cap_seconds=3600.0)


class Credentials:
    def __init__(
        self,
        directory: Path,
        *,
        pool: ManagerPool,
        clock: Clock,
        entropy: Entropy,
        on_renewal: Callable[[Role], Awaitable[None]],
    ) -> None:
        self._directory = directory
        self._pool = pool
        self._clock = clock
        self._entropy = entropy
        self._on_renewal = on_renewal
        self._one_at_a_time = asyncio.Lock()

    @property
    def identity(self) -> NodeIdentity:
        return identity_of((self._directory / CERTIFICATE).read_bytes())

    async def run(self) -> None:
        """Renew for ever, until cancelled."""
        attempt = 0
        while True:
            await asyncio.sleep(max(0.0, self._next_renewal() - self._clock.now()))
            try:
                await self.renew()
                attempt = 0
            except SwarmError as error:
                pause = BACKOFF.delay_seconds(attempt, self._entropy.uniform(0, 1))
                log.warning("certificate could not be renewed", reason=error.message, again_in_seconds=round(pause))
                attempt += 1
                await asyncio.sleep(pause)

    async def renew(self) -> Role:
        """Have a fresh key signed, put it in place and return the role it carries. Raises SwarmError."""
        async with self._one_at_a_time:
            key, csr = make_csr()
            request = ca_pb2.RenewNodeCertificateRequest(csr_pem=csr)
            answer = await self._pool.call(lambda channel: _renewed(ca_pb2_grpc.CAStub(channel), request))
            fresh = self._directory.with_name("certificates.new")
            write_certificates(fresh, root_pem=answer.root_ca_pem, certificate_pem=answer.certificate_pem, key_pem=key)
            replace_certificates(self._directory, fresh)
        role = Role(answer.role)
        log.info("certificate renewed", role=role.name.lower())
        await self._pool.reconnect()
        await self._on_renewal(role)
        return role

    def _next_renewal(self) -> float:
        certificate = x509.load_pem_x509_certificate((self._directory / CERTIFICATE).read_bytes())
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        return begin + (end - begin) * self._entropy.uniform(EARLIEST, LATEST)


async def _renewed(
    stub: "ca_pb2_grpc.CAAsyncStub", request: ca_pb2.RenewNodeCertificateRequest
) -> ca_pb2.RenewNodeCertificateResponse:
    return await stub.RenewNodeCertificate(request)
