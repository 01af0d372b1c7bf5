"""This node's certificate: renewed at a random moment of its life's second half, and at once when the role changes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography import x509

from pyswarm.proto.backoff import Backoff
from pyswarm.proto.certificate_files import recover, replace_certificates, write_certificates
from pyswarm.proto.clock import Clock
from pyswarm.proto.csr import check_issued, make_csr
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import ResourceExhausted, SwarmError
from pyswarm.proto.identity import NodeIdentity, identity_of
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.client import ManagerPool
from pyswarm.proto.rpc.tls import read_certificates
from pyswarm.proto.v1 import ca_pb2, ca_pb2_grpc

log = get_logger(__name__)

EARLIEST, LATEST = 0.5, 0.8
"""A renewal falls at a random part of the validity, so that nodes do not all come at once (swarm mistake 56)."""

BACKOFF = Backoff(first_seconds=5.0, cap_seconds=3600.0)

LOOK_SECONDS = 3600.0
"""Longest sleep: timers stand still while a machine is suspended, certificates do not."""


def renewal_moment(certificate: x509.Certificate, part: float) -> float:
    """Return the moment (seconds since the epoch) at which `part` of a certificate's validity is over."""
    begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return begin + (end - begin) * part


class Credentials:
    """`on_renewal` is told the role of each new certificate, after it is in place."""

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
        self._renewed = asyncio.Event()

    @property
    def identity(self) -> NodeIdentity:
        return identity_of(read_certificates(self._directory)[1])

    async def run(self) -> None:
        """Renew for ever, until cancelled."""
        recover(self._directory)
        while True:
            await self._renewal_is_due()
            await self._renew_at_last()

    async def renew(self) -> Role:
        """Have a fresh key signed, put it in place and return the role it carries. Raises SwarmError."""
        async with self._one_at_a_time:
            key, csr = make_csr()
            request = ca_pb2.RenewNodeCertificateRequest(csr_pem=csr)
            answer = await self._pool.call(lambda channel: _renewed(ca_pb2_grpc.CAStub(channel), request))
            check_issued(answer.certificate_pem, key_pem=key, root_pem=answer.root_ca_pem)
            self._put_in_place(answer, key)
        role = Role(answer.role)
        log.info("certificate renewed", role=role.name.lower())
        self._renewed.set()
        await self._pool.reconnect()
        await self._on_renewal(role)
        return role

    def _put_in_place(self, answer: ca_pb2.RenewNodeCertificateResponse, key: str) -> None:
        fresh = self._directory.with_name("certificates.new")
        try:
            write_certificates(fresh, root_pem=answer.root_ca_pem, certificate_pem=answer.certificate_pem, key_pem=key)
            replace_certificates(self._directory, fresh)
        except OSError as error:
            recover(self._directory)
            raise ResourceExhausted(
                f"the new certificate cannot be written: {error}",
                remedy="Look at the free space and the permissions of the state directory.",
            ) from error

    async def _renewal_is_due(self) -> None:
        """Wait for the moment of the certificate in place, whichever that is by then."""
        while True:
            self._renewed.clear()
            certificate = x509.load_pem_x509_certificate(read_certificates(self._directory)[1])
            moment = renewal_moment(certificate, self._entropy.uniform(EARLIEST, LATEST))
            while (remaining := moment - self._clock.now()) > 0:
                if await self._renewed_within(min(remaining, LOOK_SECONDS)):
                    break
            else:
                return

    async def _renewed_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._renewed.wait()
        except TimeoutError:
            return False
        return True

    async def _renew_at_last(self) -> None:
        """Try until the certificate is renewed, here or by a change of role."""
        attempt = 0
        while not self._renewed.is_set():
            try:
                await self.renew()
            except SwarmError as error:
                pause = BACKOFF.delay_seconds(attempt, self._entropy.uniform(0, 1))
                attempt += 1
                log.warning(
                    "certificate could not be renewed",
                    reason=error.message,
                    remedy=error.remedy,
                    again_in_seconds=round(pause),
                )
                await self._renewed_within(pause)


async def _renewed(
    stub: "ca_pb2_grpc.CAAsyncStub", request: ca_pb2.RenewNodeCertificateRequest
) -> ca_pb2.RenewNodeCertificateResponse:
    return await stub.RenewNodeCertificate(request)
