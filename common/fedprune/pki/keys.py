"""Keys: made where they are used, never sent, and the identity of whoever holds one."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedprune.errors import ConfigError, IdentityError

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


def new_key() -> PrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """The key as a file holds it: PKCS #8, not encrypted; the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes, *, party: str) -> PrivateKey:
    """The key of a file. Raises `ConfigError` when it is no P-256 key."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            "not a private key", party=party, seen=str(error), expected="PEM, without password"
        ) from error
    if not isinstance(key, PrivateKey) or not is_p256(key.public_key()):
        raise ConfigError("not a P-256 key", party=party, seen=type(key).__name__)
    return key


def public_key(spki: bytes, *, party: str) -> PublicKey:
    """The public key of a SubjectPublicKeyInfo (DER). Raises `IdentityError` when it is no P-256 key."""
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError("not a public key", party=party, seen=f"{len(spki)} bytes") from error
    return checked_public(key, party=party)


def checked_public(key: object, *, party: str) -> PublicKey:
    """The same key. Raises `IdentityError` when it is no P-256 key."""
    if not isinstance(key, PublicKey) or not is_p256(key):
        raise IdentityError("not a P-256 key", party=party, seen=type(key).__name__)
    return key


def is_p256(key: PublicKey) -> bool:
    """Whether the key lies on the one curve in use."""
    return isinstance(key.curve, ec.SECP256R1)


def spki(key: PublicKey) -> bytes:
    """The key as SubjectPublicKeyInfo (DER), 91 bytes."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def identity_of(key: PublicKey) -> str:
    """Who holds this key: SHA-256 of its SubjectPublicKeyInfo, in hex."""
    return hashlib.sha256(spki(key)).hexdigest()


def sign(key: PrivateKey, message: bytes) -> bytes:
    """ECDSA with SHA-256 over `message`, DER-encoded."""
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def is_signed(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether the holder of this key signed this message."""
    try:
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
