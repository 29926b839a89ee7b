"""API keys at rest: encrypted with a key that is not in the database."""

from typing import TYPE_CHECKING

from evervec.errors import Refused

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


def new_key() -> str:
    """Return a new key for `EVERVEC_SECRET_KEY`."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def seal(key: str, text: str) -> bytes:
    """Encrypt a text. Raises `Refused` if the key is not one of `new_key()`'s."""
    return _fernet(key).encrypt(text.encode())


def unseal(key: str, sealed: bytes) -> str:
    """Decrypt a text. Raises `Refused` if it was encrypted with another key."""
    from cryptography.fernet import InvalidToken

    try:
        return _fernet(key).decrypt(sealed).decode()
    except InvalidToken as error:
        raise Refused(
            reason="A provider's API key was sealed with another EVERVEC_SECRET_KEY. Set the old one, or add the "
            "provider again."
        ) from error


def _fernet(key: str) -> "Fernet":
    from cryptography.fernet import Fernet

    try:
        return Fernet(key)
    except ValueError as error:
        raise Refused(reason="EVERVEC_SECRET_KEY must be 32 bytes in URL-safe base64.") from error
