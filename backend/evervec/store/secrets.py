"""API keys at rest: encrypted with a key that is not in the database."""

from cryptography.fernet import Fernet, InvalidToken

from evervec.errors import Refused


def new_key() -> str:
    """Return a new key for `EVERVEC_SECRET_KEY`."""
    return Fernet.generate_key().decode()


def seal(key: str, text: str) -> bytes:
    """Encrypt a text. Raises `Refused` if the key is not one of `new_key()`'s."""
    return _fernet(key).encrypt(text.encode())


def unseal(key: str, sealed: bytes) -> str:
    """Decrypt a text. Raises `Refused` if it was encrypted with another key."""
    try:
        return _fernet(key).decrypt(sealed).decode()
    except InvalidToken as error:
        raise Refused(
            reason="A provider's API key was sealed with another EVERVEC_SECRET_KEY. Set the old one, or add the "
            "provider again."
        ) from error


def _fernet(key: str) -> Fernet:
    try:
        return Fernet(key)
    except ValueError as error:
        raise Refused(reason="EVERVEC_SECRET_KEY must be 32 bytes in URL-safe base64.") from error
