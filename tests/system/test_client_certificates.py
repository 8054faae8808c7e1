"""Client certificates: an unusual one disconnects its peer only, and handlers can read the names in it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import trio
from conftest import Certificates, Running, Serve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID, NameOID
from peer import Peer

from asyncapy import Server


def der(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    length = len(content)
    head = bytes((length,)) if length < 128 else bytes((0x81, length))
    return bytes((tag,)) + head + content


LATIN = "grüße@example.org".encode("latin-1")
URI = "http://example.org/grüße".encode("latin-1")
OCSP = der(0x06, b"\x2b\x06\x01\x05\x05\x07\x30\x01")

ODD = {
    "e-mail": (ExtensionOID.SUBJECT_ALTERNATIVE_NAME, der(0x30, der(0x81, LATIN))),
    "DNS": (ExtensionOID.SUBJECT_ALTERNATIVE_NAME, der(0x30, der(0x82, LATIN))),
    "URI": (ExtensionOID.SUBJECT_ALTERNATIVE_NAME, der(0x30, der(0x86, URI))),
    "OCSP": (ExtensionOID.AUTHORITY_INFORMATION_ACCESS, der(0x30, der(0x30, OCSP, der(0x86, URI)))),
    "CRL": (ExtensionOID.CRL_DISTRIBUTION_POINTS, der(0x30, der(0x30, der(0xA0, der(0xA0, der(0x86, URI)))))),
}
"""Extensions with names that are not UTF-8, as some old CAs issue them."""


def issue(
    certificates: Certificates, path: Path, subject: list[tuple[x509.ObjectIdentifier, str]], *extensions: Any
) -> Path:
    """Write a certificate of the trusted CA, with its key, into a file."""
    ca = x509.load_pem_x509_certificate(certificates.ca.cert_pem.bytes())
    ca_key: Any = serialization.load_pem_private_key(certificates.ca.private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(attribute, value) for attribute, value in subject]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
async def running(serve: Serve, certificates: Certificates) -> Running:
    server = Server(port=0, tls_cert=certificates.server, tls_client_ca=certificates.ca_file)

    @server.add_handler()
    async def identify(client: Any, packet: Any) -> None:
        await client.send({"subject": client.tls_peer, "names": dict(client.tls_names)})

    return await serve(server)


async def refused(running: Running, certificates: Certificates, certificate: Path) -> None:
    """Check that a peer with this certificate is dropped, and that the next peer is served."""
    with pytest.raises(trio.BrokenResourceError):  # with TLS 1.3 the error comes with the first read
        async with await Peer.connect_tls(running.port, certificates.client_context(certificate)) as peer:
            await peer.read(1)
    good = certificates.issue("good.pem", common_name="good")
    async with await Peer.connect_tls(running.port, certificates.client_context(good)) as peer:
        reply = await peer.ask(a=1)
        assert reply is not None
        assert reply["subject"]["commonName"] == "good"


@pytest.mark.parametrize("kind", ODD)
async def test_a_certificate_that_cannot_be_read_costs_its_peer_alone(
    running: Running, certificates: Certificates, tmp_path: Path, kind: str
) -> None:
    odd = issue(
        certificates, tmp_path / "odd.pem", [(NameOID.COMMON_NAME, "odd")], x509.UnrecognizedExtension(*ODD[kind])
    )
    await refused(running, certificates, odd)
    assert running.logged("No session for 127.0.0.1: the certificate of the peer cannot be read")
    await running.settle()


async def test_a_subject_with_two_values_for_an_attribute_is_refused(
    running: Running, certificates: Certificates, tmp_path: Path
) -> None:
    two = issue(certificates, tmp_path / "two.pem", [(NameOID.COMMON_NAME, "alice"), (NameOID.COMMON_NAME, "admin")])
    await refused(running, certificates, two)
    assert running.logged("two values for commonName")


async def test_the_names_of_a_certificate_without_a_subject_are_offered(
    running: Running, certificates: Certificates, tmp_path: Path
) -> None:
    names = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier("spiffe://example.org/billing"),
            x509.DNSName("billing.example.org"),
            x509.DNSName("b.example.org"),
            x509.RFC822Name("billing@example.org"),
            x509.RegisteredID(AuthorityInformationAccessOID.OCSP),
        ]
    )
    service = issue(certificates, tmp_path / "service.pem", [], names)
    async with await Peer.connect_tls(running.port, certificates.client_context(service)) as peer:
        assert await peer.ask(a=1) == {
            "subject": {},
            "names": {
                "DNS": ["billing.example.org", "b.example.org"],
                "email": ["billing@example.org"],
                "URI": ["spiffe://example.org/billing"],
            },
        }


async def test_without_a_certificate_there_are_no_names(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def identify(client: Any, packet: Any) -> None:
        await client.send({"subject": client.tls_peer, "names": dict(client.tls_names)})

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"subject": None, "names": {}}
