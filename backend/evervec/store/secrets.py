"""API keys and passwords at rest: encrypted with a key that is not in the database.

`EVERVEC_SECRET_KEY` may hold several, with commas between them: the first encrypts, all decrypt, so that they can be rotated.
"""

from typing import TYPE_CHECKING, Final

from evervec.errors import Refused

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet


KEY_FILE: Final = "secret.key"
"""The file in EVERVEC_HOME that holds the key of an embedded database when EVERVEC_SECRET_KEY is not set."""


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


def keys(key: str) -> list[str]:
    """Return the keys in `EVERVEC_SECRET_KEY`, the one that encrypts first."""
    return [part.strip() for part in key.split(",")]


def reseal(key: str, sealed: bytes) -> bytes:
    """Encrypt with the first key what any of them encrypted. Raises `Refused` if none of them did."""
    return seal(key, unseal(key, sealed))


def _fernet(key: str) -> "MultiFernet":
    from cryptography.fernet import Fernet, MultiFernet

    try:
        return MultiFernet([Fernet(part) for part in keys(key)])
    except ValueError as error:
        raise Refused(
            reason="EVERVEC_SECRET_KEY must be 32 bytes in URL-safe base64, or several of them with commas between."
        ) from error
