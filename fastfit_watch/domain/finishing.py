"""What the operator wants done to every picture before it is saved: a visible label, a signature."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SigningIdentity:
    """Whose signature. certificate: the chain as PEM, the signer's own first. key: PKCS 8, PEM, without a password.

    algorithm: es256, es384, es512, ps256, ps384, ps512 or ed25519, as the key is. timestamp_url: of an RFC 3161
    authority, asked for each picture; empty: none is asked.
    """

    certificate: Path
    key: Path
    algorithm: str
    timestamp_url: str = ""


@dataclass(frozen=True)
class Finishing:
    """What is done to every picture. label: words for its corner; empty: none. signing: None for no signature."""

    label: str = ""
    signing: SigningIdentity | None = None
