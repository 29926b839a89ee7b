"""A front of the embedded server, which has a Unix socket alone: TCP, IPv6 and TLS, with a certificate of its own."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SSL_REQUEST = struct.pack("!ll", 8, 80877103)
PIECE = 1 << 16


@dataclass
class Certificates:
    """A folder with `ca.crt`, and for `server` and `client` a certificate and a key that it signed."""

    folder: Path

    def __str__(self) -> str:
        """Return the file of the authority's certificate."""
        return str(self.folder / "ca.crt")

    def context(self, *, asks: bool = False) -> ssl.SSLContext:
        """Return the server's side; with `asks` it lets nobody in without a certificate of the client."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        context.set_alpn_protocols(["postgresql"])
        if asks:
            context.load_verify_locations(self.folder / "ca.crt")
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def certify(folder: Path) -> Certificates:
    """Make an authority, a server's certificate for localhost and 127.0.0.1, and a client's."""
    folder.mkdir()
    authority, key = _certificate("authority", None, [])
    _store(folder / "ca", authority, key)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    for name, alternatives in {"server": names, "client": []}.items():
        _store(folder / name, *_certificate(name, (authority, key), alternatives))
    return Certificates(folder)


def _certificate(
    name: str,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    alternatives: list[x509.GeneralName],
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if alternatives:
        built = built.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return built.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def _store(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = path.with_suffix(".key")
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    secret.chmod(0o600)


@dataclass
class Front:
    """One address of the server: what it listens on, and what its clients did."""

    socket: str
    context: ssl.SSLContext | None
    port: int = 0
    encrypted: list[bool] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """The names that clients asked for (SNI)."""
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    def send(self, message: bytes) -> None:
        """Send a message to every client, as if it were the server's."""
        for client in self.clients:
            client.write(message)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a client's question for TLS as PostgreSQL does, then pass everything on in both directions."""
        try:
            first = await reader.readexactly(8)
            while first == SSL_REQUEST:
                writer.write(b"N" if self.context is None else b"S")
                await writer.drain()
                if self.context is not None:
                    await writer.start_tls(self.context)
                first = await reader.readexactly(8)
            self.encrypted.append(writer.get_extra_info("ssl_object") is not None)
            server_reader, server_writer = await asyncio.open_unix_connection(self.socket)
            server_writer.write(first)
            self.clients.append(writer)
            await asyncio.gather(_pass(reader, server_writer), _pass(server_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            return  # the client went away, or did not trust the certificate
        finally:
            writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def front(
    socket: str, context: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", direct: bool = False
) -> AsyncIterator[Front]:
    """Listen on a free port of `host`. With `direct` TLS begins at once, without the question for it."""
    opened = Front(socket, context)
    if context is not None:

        def named(_: ssl.SSLSocket | ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
            opened.names.append(name)

        context.sni_callback = named
    server = await asyncio.start_server(opened.serve, host, 0, ssl=context if direct else None)
    opened.port = server.sockets[0].getsockname()[1]
    try:
        yield opened
    finally:
        server.close()
