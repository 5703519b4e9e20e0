"""Content Credentials: results signed with the operator's key (C2PA specification 2.2, by the library c2pa-python).

Optional: `pip install 'fastfit-watch[c2pa]'`. A signature is different every time, so signed files are never
byte-equal; their pixels and their marks are.
"""

from __future__ import annotations

import io
from typing import Any

from fastfit_watch.domain.errors import ConfigError, EngineError
from fastfit_watch.domain.finishing import SigningIdentity
from fastfit_watch.domain.look import ImageFormat
from fastfit_watch.imaging.xmp import SOURCE_TYPE

_MIME = {ImageFormat.PNG: "image/png", ImageFormat.JPG: "image/jpeg", ImageFormat.WEBP: "image/webp"}
_SIGNATURES = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"))
_INSTALL = "Install it: pip install 'fastfit-watch[c2pa]'."
# Thumbnails would show the person's photograph again; nothing is fetched from the network.
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": True},
}


def sign_picture(data: bytes, format: ImageFormat, person: bytes, model: str, signing: SigningIdentity) -> bytes:
    """Return the file of a picture with its signed manifest: the person's photograph is the parent, a model edited it.

    person: the file of the photograph; what it says of its own origin is kept. Raises ConfigError if the key cannot be
    used, EngineError if signing fails.
    """
    c2pa = _library()
    manifest = {
        "claim_generator_info": [{"name": "fastfit-watch"}],
        "title": f"picture.{format.value}",
        "format": _MIME[format],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": _actions(model)}}],
    }
    parent = {"title": "person", "relationship": "parentOf", "label": "person", "instance_id": "person"}
    signed = io.BytesIO()
    try:
        context = c2pa.Context(c2pa.Settings.from_dict(_SETTINGS))
        with _open_signer(c2pa, signing) as signer, c2pa.Builder(manifest, context) as builder:
            builder.add_ingredient(parent, _kind(person), io.BytesIO(person))
            builder.sign(signer, _MIME[format], io.BytesIO(data), signed)
    except c2pa.C2paError as error:
        raise EngineError(f"The picture cannot be signed: {error}.", hint="Check 'marks' in the settings.") from error
    return signed.getvalue()


def check_signing(signing: SigningIdentity) -> None:
    """Sign a small picture, to find out at the start what would fail later. Raises ConfigError."""
    from PIL import Image

    small = io.BytesIO()
    Image.new("RGB", (16, 16)).save(small, "PNG")
    try:
        sign_picture(small.getvalue(), ImageFormat.PNG, small.getvalue(), "none", signing)
    except EngineError as error:
        raise ConfigError(str(error)) from error


def _actions(model: str) -> list[dict[str, Any]]:
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["person"]}}
    agent = {"name": model or "fastfit-watch"}
    return [opened, {"action": "c2pa.edited", "digitalSourceType": SOURCE_TYPE, "softwareAgent": agent}]


def _open_signer(c2pa: Any, signing: SigningIdentity) -> Any:
    try:
        certificate, key = signing.certificate.read_bytes(), signing.key.read_bytes()
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}.", hint="See 'marks'.") from error
    url = signing.timestamp_url.encode() or None
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(signing.algorithm.encode(), certificate, key, url))


def _library() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise ConfigError("Signing needs the library c2pa-python, which is not installed.", hint=_INSTALL) from error
    return c2pa


def _kind(picture: bytes) -> str:
    boxed = "image/avif" if b"avif" in picture[8:64] else "image/heic"
    return next((kind for signature, kind in _SIGNATURES if picture.startswith(signature)), boxed)
