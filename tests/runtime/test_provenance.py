"""Provenance: what limner writes, another library reads; what is signed, verifies, and not after a change."""

from __future__ import annotations

import builtins
import datetime
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from commandline import limner
from kit import make_bundle
from PIL import Image

from limner import __version__, bundle, images
from limner.errors import LimnerError
from limner.images import FORMATS, Picture
from limner.runtime import provenance
from limner.runtime.provenance import EDITED, ENHANCED, GENERATED, Provenance, Signer, read, sign, signature, stamp

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
MADE = Provenance("icons", "ab" * 32, 7)
CAMERA = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b'xmp:CreatorTool="Camera 1" tiff:Orientation="1" %s>'
    b"%s</rdf:Description></rdf:RDF></x:xmpmeta>"
)
CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


def blank(**options: Any) -> Picture:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    return Picture(pixels, **options)


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(LimnerError) as caught:
        call(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


def by_pillow(path: Path) -> ElementTree.Element:
    """The root of the XMP packet as Pillow finds it."""
    with Image.open(path) as image:
        packet = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    return ElementTree.fromstring(packet.encode() if isinstance(packet, str) else packet)


def values(root: ElementTree.Element, name: str) -> list[str]:
    return [each.attrib[name] for each in root.iter(f"{RDF}Description") if name in each.attrib]


# ---------------------------------------------------------------------------------------------------------------- XMP


@pytest.mark.parametrize("format", FORMATS)
def test_pillow_reads_what_was_written(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{FORMATS[format].suffixes[0]}"
    images.write(stamp(blank(), MADE), path)
    root = by_pillow(path)
    assert values(root, f"{IPTC}DigitalSourceType") == [GENERATED]
    assert values(root, f"{IPTC}AISystemUsed") == ["limner icons"]
    assert values(root, f"{IPTC}AISystemVersionUsed") == [f"limner {__version__}"]
    assert values(root, "{urn:x-limner:1.0:}bundle") == ["ab" * 32]
    assert values(root, "{urn:x-limner:1.0:}seed") == ["7"]
    assert not values(root, f"{IPTC}AIPromptInformation")
    assert read(path) == MADE


def test_the_prompt_is_recorded_on_request_whatever_it_says(tmp_path: Path) -> None:
    prompt = "a \"red\" 'apple' & <b>\n\té 苹果 🍎 &amp;"
    images.write(stamp(blank(), Provenance("icons", seed=0, prompt=prompt)), tmp_path / "a.webp")
    assert values(by_pillow(tmp_path / "a.webp"), f"{IPTC}AIPromptInformation") == [prompt]
    assert read(tmp_path / "a.webp") == Provenance("icons", seed=0, prompt=prompt)


def test_characters_that_xml_cannot_hold_are_replaced() -> None:
    again = read(images.encode(stamp(blank(), Provenance("icons", prompt="a\x00b\x1bc\ud800d\uffffe")), "png"))
    assert again is not None and again.prompt == "a\ufffdb\ufffdc\ufffdd\ufffde"


def test_the_longest_prompt_fits_a_jpeg_file_and_a_longer_one_is_refused() -> None:
    longest = Provenance("icons", prompt="苹" * provenance.MAX_PROMPT)
    assert read(images.encode(stamp(blank(), longest), "jpeg")) == longest
    sentence = refusal(stamp, blank(), Provenance("icons", prompt="a" * (provenance.MAX_PROMPT + 1)))
    assert "8001 characters" in sentence and "do not record it" in sentence


def test_a_bundle_is_named_by_the_hash_of_its_manifest(tmp_path: Path) -> None:
    opened = bundle.read(make_bundle(tmp_path / "tiny"))
    made = Provenance.of(opened, seed=3)
    assert (made.model, made.seed, made.source_type) == ("tiny", 3, GENERATED)
    assert made.bundle == bundle.sha256(tmp_path / "tiny" / "manifest.json")


@pytest.mark.parametrize(
    ("attribute", "element"),
    [
        (b"", b""),
        (b'ext:DigitalSourceType="%s"' % CAPTURE.encode(), b""),
        (b"", b"<ext:DigitalSourceType>%s</ext:DigitalSourceType>" % CAPTURE.encode()),
        (b"", b'<ext:DigitalSourceType rdf:resource="%s"/>' % CAPTURE.encode()),
    ],
)
def test_a_photograph_keeps_its_other_fields(attribute: bytes, element: bytes) -> None:
    before = CAMERA % (attribute, element)
    source_type = provenance._parsed(before).get("source_type")
    assert source_type == (CAPTURE if attribute or element else None)
    picture = stamp(blank(xmp=before), Provenance("photo-x4", source_type=ENHANCED))
    assert picture.xmp is not None and picture.xmp.count(b"DigitalSourceType") == 1
    root = ElementTree.fromstring(picture.xmp)
    assert values(root, "{http://ns.adobe.com/xap/1.0/}CreatorTool") == ["Camera 1"]
    assert values(root, "{http://ns.adobe.com/tiff/1.0/}Orientation") == ["1"]
    assert values(root, f"{IPTC}DigitalSourceType") == [ENHANCED]
    again = read(images.encode(picture, "jpeg"))
    assert again == Provenance("photo-x4", source_type=ENHANCED)


def test_stamping_again_replaces() -> None:
    twice = stamp(stamp(blank(), MADE), Provenance("other", seed=8))
    assert twice.xmp is not None and twice.xmp.count(b":seed=") == 1 and b"ab" * 32 not in twice.xmp
    assert read(images.encode(twice, "png")) == Provenance("other", seed=8)


def test_an_upscaled_painting_is_still_that_painting() -> None:
    enlarged = stamp(stamp(blank(), MADE), Provenance("icons-x4", source_type=ENHANCED))
    assert read(images.encode(enlarged, "png")) == MADE
    edited = stamp(blank(), Provenance("restore", source_type=EDITED))
    again = read(images.encode(stamp(edited, Provenance("x2", source_type=ENHANCED)), "png"))
    assert again is not None and again.source_type == EDITED


@pytest.mark.parametrize(
    "broken",
    [
        b"not xml",
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>",
        b"",
        (CAMERA % (b"", b"")).replace(b"rdf:", b"r:").replace(b"xmlns:rdf", b"xmlns:r"),
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + CAMERA % (b"", b""),
        CAMERA % (b'xmp:Label="%s"' % (b"x" * 60_000), b""),
    ],
)
def test_xmp_that_cannot_be_kept_gives_way(broken: bytes) -> None:
    for format in ("jpeg", "png"):
        assert read(images.encode(stamp(blank(xmp=broken), MADE), format)) == MADE


def test_pictures_without_provenance() -> None:
    assert read(images.encode(blank(), "png")) is None
    assert read(images.encode(blank(xmp=CAMERA % (b"", b"")), "png")) is None
    assert read(images.encode(blank(xmp=b"\xff\xfe broken"), "webp")) is None


def test_reading_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    assert "a.png: is not a PNG" in refusal(read, tmp_path / "a.png")
    assert "no such file" in refusal(read, tmp_path / "b.png")


def test_a_seed_that_is_no_number_is_left_out() -> None:
    xmp = MADE.xmp().replace(b'limner:seed="7"', b'limner:seed="seven"')
    again = read(images.encode(blank(xmp=xmp), "png"))
    assert again is not None and again.seed is None and again.model == "icons"


# ---------------------------------------------------------------------------------------------------------------- info


def test_info_shows_the_origin_of_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images.write(stamp(blank(), MADE), tmp_path / "a.png")
    assert limner("info", str(tmp_path / "a.png"), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["model"], shown["seed"], shown["source_type"]) == ("icons", 7, GENERATED)
    assert limner("info", str(tmp_path / "a.png")) == 0
    table = capsys.readouterr().out
    assert "trainedAlgorithmicMedia" in table and "icons" in table


def test_info_on_a_picture_of_unknown_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images.write(blank(), tmp_path / "a[x].png")
    assert limner("info", str(tmp_path / "a[x].png")) == 0
    assert "a[x].png does not say where it comes from" in capsys.readouterr().out


def test_info_tells_who_signed(papers: Papers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images.write(stamp(blank(), MADE), tmp_path / "a.webp")
    sign(tmp_path / "a.webp", papers.chain, papers.key)
    assert limner("info", str(tmp_path / "a.webp"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["signature"] == "Valid, by Painter"


# ---------------------------------------------------------------------------------------------------------------- C2PA


@dataclass(frozen=True)
class Papers:
    """PEM files of one authority: `chain` and `key` of a signer, `root` to trust."""

    chain: Path
    key: Path
    root: Path


def issue(name: str, key: Any, issuer: str, issuer_key: Any, *, authority: bool = False, days: float = 30) -> bytes:
    """A certificate in PEM form as C2PA wants it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(text: str) -> x509.Name:
        pairs = ((NameOID.ORGANIZATION_NAME, "Test"), (NameOID.COMMON_NAME, text))
        return x509.Name([x509.NameAttribute(kind, value) for kind, value in pairs])

    now = datetime.datetime.now(datetime.UTC)
    uses = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
    draft = (
        x509.CertificateBuilder(named(issuer), named(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(uses, critical=True)
    )
    if not authority:
        draft = draft.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    digest = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return draft.sign(issuer_key, digest).public_bytes(serialization.Encoding.PEM)


def pem(key: Any, passphrase: bytes = b"") -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    lock = s.BestAvailableEncryption(passphrase) if passphrase else s.NoEncryption()
    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, lock)


def new_key(kind: str = "p256") -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    makers: dict[str, Callable[[], Any]] = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "k1": lambda: ec.generate_private_key(ec.SECP256K1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "short": lambda: rsa.generate_private_key(65537, 1024),
    }
    return makers[kind]()


def issued(folder: Path, kind: str = "p256", days: float = 30) -> Papers:
    """An authority and a signer that it vouches for."""
    folder.mkdir(exist_ok=True)
    papers = Papers(folder / "chain.pem", folder / "key.pem", folder / "root.pem")
    root_key, key = new_key(kind), new_key(kind)
    root = issue("Root", root_key, "Root", root_key, authority=True)
    papers.root.write_bytes(root)
    papers.chain.write_bytes(issue("Painter", key, "Root", root_key, days=days) + root)
    papers.key.write_bytes(pem(key))
    return papers


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    pytest.importorskip("c2pa")
    return issued(tmp_path_factory.mktemp("papers"))


@pytest.mark.parametrize("format", FORMATS)
def test_a_signed_file_verifies_and_shows_the_same_picture(format: str, papers: Papers, tmp_path: Path) -> None:
    path = tmp_path / f"a{FORMATS[format].suffixes[0]}"
    made = Provenance("icons", "ab" * 32, 7, prompt="a red apple")
    images.write(stamp(blank(), made), path)
    with Image.open(path) as image:
        before = np.asarray(image)
    sign(path, papers.chain, papers.key)
    found = signature(path, anchors=papers.root)
    assert found is not None
    assert (found.state, found.signer, found.source_type, found.problems) == ("Trusted", "Painter", GENERATED, ())
    assert found.generation == {"model": "icons", "bundle": "ab" * 32, "seed": 7, "prompt": "a red apple"}
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), before)
    assert read(path) == made
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["p384", "ed25519", "rsa"])
def test_other_kinds_of_keys(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    papers = issued(tmp_path, kind)
    data = Signer(papers.chain, papers.key).sign(images.encode(stamp(blank(), MADE), "png"), "png")
    found = signature(data, anchors=papers.root)
    assert found is not None and found.state == "Trusted"


def test_an_unknown_signer_is_valid_but_not_trusted(papers: Papers, tmp_path: Path) -> None:
    data = Signer(papers.chain, papers.key).sign(images.encode(stamp(blank(), MADE), "png"), "png")
    for anchors in (None, issued(tmp_path).root):
        found = signature(data, anchors=anchors)
        assert found is not None
        assert (found.state, found.problems) == ("Valid", ("signingCredential.untrusted",))


def test_a_changed_file_is_invalid(papers: Papers) -> None:
    data = bytearray(Signer(papers.chain, papers.key).sign(images.encode(stamp(blank(), MADE), "png"), "png"))
    data[-20] ^= 1
    found = signature(bytes(data), anchors=papers.root)
    assert found is not None
    assert found.state == "Invalid" and "assertion.dataHash.mismatch" in found.problems


def test_a_file_without_signature(papers: Papers) -> None:
    assert signature(images.encode(stamp(blank(), MADE), "png"), anchors=papers.root) is None


def test_an_enhanced_photograph_is_signed_with_its_original(papers: Papers, tmp_path: Path) -> None:
    Image.fromarray(blank().pixels).save(tmp_path / "photo.jpg")
    images.write(stamp(blank(), Provenance("photo-x4", source_type=ENHANCED)), tmp_path / "large.png")
    sentence = refusal(sign, tmp_path / "large.png", papers.chain, papers.key)
    assert "large.png: was made from another picture" in sentence
    sign(tmp_path / "large.png", papers.chain, papers.key, parent=tmp_path / "photo.jpg")
    found = signature(tmp_path / "large.png", anchors=papers.root)
    assert found is not None and (found.state, found.source_type) == ("Trusted", ENHANCED)


def test_a_file_of_unknown_origin_is_not_signed(papers: Papers, tmp_path: Path) -> None:
    images.write(blank(), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    assert "carries no provenance" in refusal(sign, tmp_path / "a.png", papers.chain, papers.key)
    assert "b.png: cannot be read" in refusal(sign, tmp_path / "b.png", papers.chain, papers.key)
    assert (tmp_path / "a.png").read_bytes() == before


def test_bad_papers(papers: Papers, tmp_path: Path) -> None:
    other = issued(tmp_path / "other")
    old = issued(tmp_path / "old", days=-1)
    (tmp_path / "junk.pem").write_text("hello")
    lone = new_key()
    (tmp_path / "self.pem").write_bytes(issue("Me", lone, "Me", lone))
    (tmp_path / "self-key.pem").write_bytes(pem(lone))
    (tmp_path / "locked.pem").write_bytes(pem(new_key(), b"secret"))
    cases = [
        (tmp_path / "none.pem", papers.key, "none.pem: cannot be read (No such file"),
        (papers.chain, tmp_path / "none.pem", "none.pem: cannot be read (No such file"),
        (tmp_path / "junk.pem", papers.key, "junk.pem: holds no certificate"),
        (papers.chain, tmp_path / "junk.pem", "junk.pem: is no private key"),
        (papers.chain, tmp_path / "locked.pem", "locked.pem: is locked with a passphrase"),
        (papers.chain, other.key, "is not the private key of the first certificate in"),
        (old.chain, old.key, "chain.pem: is valid from"),
        (tmp_path / "self.pem", tmp_path / "self-key.pem", "has signed itself"),
    ]
    for certificate, key, words in cases:
        assert words in refusal(Signer, certificate, key)


@pytest.mark.parametrize("kind", ["k1", "short"])
def test_keys_that_c2pa_has_no_use_for(kind: str, papers: Papers, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(pem(new_key(kind)))
    assert "no use for this kind of key" in refusal(Signer, papers.chain, tmp_path / "key.pem")


def test_a_certificate_for_another_purpose(papers: Papers, tmp_path: Path) -> None:
    key, root_key = new_key(), new_key()
    (tmp_path / "chain.pem").write_bytes(issue("Painter", key, "Root", root_key, authority=True))
    (tmp_path / "key.pem").write_bytes(pem(key))
    images.write(stamp(blank(), MADE), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    sentence = refusal(sign, tmp_path / "a.png", tmp_path / "chain.pem", tmp_path / "key.pem")
    assert "a.png: cannot be signed" in sentence and "C2PA wants a certificate for signing" in sentence
    assert (tmp_path / "a.png").read_bytes() == before


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def absent(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "c2pa":
            raise ImportError("No module named 'c2pa'")
        return found(name, *arguments, **options)

    provenance._package.cache_clear()
    monkeypatch.setattr(builtins, "__import__", absent)
    assert "pip install 'limner[provenance]'" in refusal(Signer, "chain.pem", "key.pem")
    assert "pip install 'limner[provenance]'" in refusal(signature, b"")
    assert read(images.encode(stamp(blank(), MADE), "png")) == MADE


def test_bytes_are_not_a_signed_picture(papers: Papers) -> None:
    assert "C2PA manifest cannot be read" in refusal(signature, io.BytesIO(b"\x89PNG\r\n\x1a\nbroken").getvalue())
