"""The endpoint of a provider: its address, key and model. Two records with the same three share one circuit breaker."""

import hmac
from hashlib import sha256


def endpoint_digest(
    type_: str, base_url: str | None, model: str, *, api_key: str | None = None, secret: str | None = None
) -> bytes:
    """Return the digest of an endpoint; the key is part of it as a keyed hash, which says nothing without `secret`."""
    key = "" if api_key is None else hmac.digest((secret or "").encode(), api_key.encode(), "sha256").hex()
    return sha256("\n".join((type_, (base_url or "").rstrip("/"), model, key)).encode()).digest()
