"""Labels in a corner, and Content Credentials that c2pa's own verifier accepts."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastfit_watch.cli.reproduce import compare
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.finishing import Finishing, SigningIdentity
from fastfit_watch.domain.look import ImageFormat
from fastfit_watch.imaging.codec import encode_image
from fastfit_watch.imaging.content_credentials import check_signing
from fastfit_watch.imaging.finishing import draw_label, finish_picture
from fastfit_watch.imaging.xmp import SOURCE_TYPE, read_marks
from fastfit_watch.system.exit_codes import ExitCode

MARKS = {"model": "mini", "revision": "1", "seed": "7"}
SECRET = b"Anna's secret address"


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """A photograph that says where it was taken."""
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 14.0), 3: "E", 4: (11.0, 34.0, 31.0)}
    Image.new("RGB", (300, 400), "navy").save(tmp_path / "anna.jpg", exif=exif)
    return tmp_path / "anna.jpg"


def picture(colour: str = "navy", size: tuple[int, int] = (384, 512)) -> Image.Image:
    return Image.new("RGB", size, colour)


@pytest.mark.parametrize("colour", ["white", "black", "#808080", "#ff0000"])
@pytest.mark.parametrize("size", [(768, 1024), (3000, 4000), (384, 512)])
def test_a_label_is_small_legible_and_in_the_corner(colour: str, size: tuple[int, int]) -> None:
    plain = np.asarray(picture(colour, size), np.int16)
    labelled = np.asarray(draw_label(picture(colour, size), "AI-generated"), np.int16)
    rows, columns = np.nonzero(np.abs(labelled - plain).max(axis=2))
    assert rows.min() > 0.94 * size[1] and columns.min() > 0.75 * size[0]
    assert (rows.max(), columns.max()) == (size[1] - 1, size[0] - 1) or colour == "black"
    band = labelled[rows.min() :, columns.min() :].max(axis=2)
    assert band.max() >= 250, "white letters"
    luminance = labelled[rows.min() :, columns.min() :] @ np.array([0.2126, 0.7152, 0.0722])
    assert np.median(luminance) < 120, "on a band that is dark on any background"


def test_a_label_says_of_itself_that_it_is_there(person: Path) -> None:
    data = finish_picture(picture(), ImageFormat.PNG, MARKS, Finishing("AI-generated"), person)
    assert read_marks(data) == MARKS | {"label": "AI-generated"}
    assert data == finish_picture(picture(), ImageFormat.PNG, MARKS, Finishing("AI-generated"), person)


def test_a_longer_label_than_the_picture_is_cut_and_no_crash() -> None:
    assert draw_label(picture(size=(64, 64)), "x" * 40).size == (64, 64)


def test_a_key_that_is_not_there_is_found_out_at_the_start(tmp_path: Path) -> None:
    pytest.importorskip("c2pa", reason="the c2pa extra is not installed")
    with pytest.raises(ConfigError, match=r"c\.pem cannot be read"):
        check_signing(SigningIdentity(tmp_path / "c.pem", tmp_path / "k.pem", "es256"))
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).write_text("no key\n")
    with pytest.raises(ConfigError, match="cannot be signed"):
        check_signing(SigningIdentity(tmp_path / "c.pem", tmp_path / "k.pem", "es256"))


@pytest.mark.parametrize("format", list(ImageFormat))
def test_c2pa_s_own_verifier_trusts_a_signed_picture(format: ImageFormat, person: Path, tmp_path: Path) -> None:
    c2pa = pytest.importorskip("c2pa", reason="the c2pa extra is not installed")
    signing, authority = make_certificates(tmp_path)
    check_signing(signing)
    signed = finish_picture(picture(), format, MARKS, Finishing("", signing), person)
    trust = {"verify": {"verify_trust": True}, "trust": {"trust_anchors": authority}}
    context = c2pa.Context(c2pa.Settings.from_dict(trust))
    kind = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}[format.value]

    with c2pa.Reader(kind, io.BytesIO(signed), context=context) as reader:
        assert reader.get_validation_state() == "Trusted"
        manifest = json.loads(reader.json())
    active = manifest["manifests"][manifest["active_manifest"]]
    assert [each["relationship"] for each in active["ingredients"]] == ["parentOf"]
    actions = next(each for each in active["assertions"] if each["label"].startswith("c2pa.actions"))["data"]["actions"]
    assert [action["action"] for action in actions] == ["c2pa.opened", "c2pa.edited"]
    assert actions[1]["digitalSourceType"] == SOURCE_TYPE

    assert read_marks(signed) == MARKS, "the XMP marks are under the signature, not lost to it"
    assert SECRET not in signed
    plain = encode_image(picture(), format, MARKS)
    assert compare(signed, plain)[0] is ExitCode.OK
    other = encode_image(picture("red"), format, MARKS)
    assert compare(signed, other)[0] is ExitCode.DIFFERENT

    forged = signed.replace(b'fastfit:seed="7"', b'fastfit:seed="8"')
    assert forged != signed
    with c2pa.Reader(kind, io.BytesIO(forged), context=context) as reader:
        assert reader.get_validation_state() == "Invalid"


def make_certificates(folder: Path) -> tuple[SigningIdentity, str]:
    """A signer's certificate and key, made for this test, and the authority that vouches for it, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("authority", "signer")}

    def certificate(name: str) -> x509.Certificate:
        is_authority = name == "authority"
        subject, issuer = (
            x509.Name(
                [x509.NameAttribute(NameOID.COMMON_NAME, each), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test")]
            )
            for each in (name, "authority")
        )
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = (
            x509.CertificateBuilder(issuer, subject, keys[name].public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority, **usage
                ),
                critical=True,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["authority"].public_key()), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[name].public_key()), critical=False)
        )
        if not is_authority:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
            )
        return builder.sign(keys["authority"], hashes.SHA256())

    signer, authority = (certificate(name).public_bytes(serialization.Encoding.PEM) for name in ("signer", "authority"))
    (folder / "chain.pem").write_bytes(signer + authority)
    (folder / "key.pem").write_bytes(
        keys["signer"].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return SigningIdentity(folder / "chain.pem", folder / "key.pem", "es256"), authority.decode()
