"""Where a picture comes from: IPTC and limner fields in XMP, and C2PA signatures with the user's own certificate.

XMP is a statement that anybody can edit or strip; a C2PA signature (extra `provenance`) shows who made the statement
and that the file has not changed since. Without signing, this module needs nothing but the standard library.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from limner import __version__, bundle, images
from limner.errors import LimnerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

# https://cv.iptc.org/newscodes/digitalsourcetype/ (version of 2024-10-23)
_CODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = f"{_CODES}trainedAlgorithmicMedia"
"""Created using generative AI: every picture painted from a prompt."""
EDITED = f"{_CODES}compositeWithTrainedAlgorithmicMedia"
"""Augmented with content from a generative model: inpainting, outpainting, another style."""
ENHANCED = f"{_CODES}algorithmicallyEnhanced"
"""Altered by an algorithm without changing the main content: upscaled, sharpened, with less noise."""

MAX_PROMPT = 8000  # characters
# libvips leaves XMP out of a JPEG file, without a word, where it does not fit one segment of 64 KiB.
_LARGEST_XMP = 55_000

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_LIMNER = "urn:x-limner:1.0:"
_NAMESPACES = {"Iptc4xmpExt": _IPTC, "xmp": _XMP, "limner": _LIMNER}
# IPTC Photo Metadata Standard 2025.1 for DigitalSourceType and AI*; what it has no name for is limner's own.
_PROPERTIES = {
    "source_type": (_IPTC, "DigitalSourceType"),
    "model": (_IPTC, "AISystemUsed"),
    "software": (_IPTC, "AISystemVersionUsed"),
    "prompt": (_IPTC, "AIPromptInformation"),
    "bundle": (_LIMNER, "bundle"),
    "seed": (_LIMNER, "seed"),
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


@dataclass(frozen=True)
class Provenance:
    """What a file says about its origin.

    `model`: the bundle's name. `bundle`: sha256 of its manifest, which holds the hashes of all its files. `prompt`:
    None unless the user asked to record it. `software` wrote the file. `source_type`: a URI of IPTC's vocabulary.
    """

    model: str
    bundle: str = ""
    seed: int | None = None
    prompt: str | None = None
    source_type: str = GENERATED
    software: str = f"limner {__version__}"

    @classmethod
    def of(cls, opened: bundle.Bundle, **fields: Any) -> Provenance:
        """The provenance of a picture that `opened` painted; `fields` as in the class."""
        return cls(opened.manifest.name, bundle_hash(opened), **fields)

    def xmp(self) -> bytes:
        """A whole XMP packet. Raises LimnerError for a prompt longer than `MAX_PROMPT`."""
        return _HEAD + self._description({"xmp:CreatorTool": self.software}).encode() + _TAIL

    def _description(self, more: dict[str, str] | None = None) -> str:
        if self.prompt is not None and len(self.prompt) > MAX_PROMPT:
            raise LimnerError(
                f"the prompt has {len(self.prompt)} characters, more than the {MAX_PROMPT} that a file records; "
                "shorten it, or do not record it."
            )
        values = {
            "Iptc4xmpExt:DigitalSourceType": self.source_type,
            "Iptc4xmpExt:AISystemUsed": f"limner {self.model}",
            "Iptc4xmpExt:AISystemVersionUsed": self.software,
            "limner:bundle": self.bundle,
            "limner:seed": self.seed,
            "Iptc4xmpExt:AIPromptInformation": self.prompt,
            **(more or {}),
        }
        fields = (f"{name}={_quoted(value)}" for name, value in values.items() if value not in (None, ""))
        return f'<rdf:Description rdf:about="" {_DECLARED} {" ".join(fields)}/>'


def bundle_hash(opened: bundle.Bundle) -> str:
    """sha256 of the bundle's manifest, in hexadecimal: it pins every file of the bundle."""
    return bundle.sha256(opened.folder / bundle.MANIFEST)


_HEAD = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'<rdf:RDF xmlns:rdf="{_RDF}">'
).encode()
_TAIL = b'</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
_DECLARED = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in _NAMESPACES.items())


def _quoted(value: object) -> str:
    clean = _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", str(value))
    return quoteattr(clean, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


# ---------------------------------------------------------------------------------------------------------- XMP


def stamp(picture: images.Picture, provenance: Provenance) -> images.Picture:
    """`picture` with `provenance` in its XMP, to be written by `images.write` or `images.encode`.

    Other fields of an XMP block that the picture brought along stay; the fields that limner writes are replaced. A
    picture that a generative model made or edited keeps its block when it is only enhanced: an upscaled painting is
    still that painting. A block too large for a JPEG file gives way, so that the provenance is never what is lost.
    """
    if picture.xmp is None:
        return replace(picture, xmp=provenance.xmp())
    if provenance.source_type == ENHANCED and _parsed(picture.xmp).get("source_type") in (GENERATED, EDITED):
        return picture
    return replace(picture, xmp=_merged(picture.xmp, provenance))


def read(source: images.Source) -> Provenance | None:
    """What a picture file (a path, or its bytes) says about its origin; None when it names no IPTC source type.

    Raises LimnerError for what is not a picture.
    """
    fields = _parsed(images.embedded_xmp(source) or b"")
    if "source_type" not in fields:
        return None
    seed = fields.get("seed", "")
    return Provenance(
        model=fields.get("model", "").removeprefix("limner "),
        bundle=fields.get("bundle", ""),
        seed=int(seed) if re.fullmatch(r"-?\d{1,20}", seed) else None,
        prompt=fields.get("prompt"),
        source_type=fields["source_type"],
        software=fields.get("software", ""),
    )


def origin(source: images.Source) -> dict[str, Any]:
    """All that a picture says of its origin, for people to read: its Provenance, and its signature where the extra
    `provenance` is installed. Empty when it says nothing.
    """
    found = read(source)
    told = {} if found is None else {key: value for key, value in asdict(found).items() if value not in (None, "")}
    if find_spec("c2pa") is not None and (signed := signature(source)) is not None:
        told["signature"] = f"{signed.state}, by {signed.signer or 'nobody named'}"
    return told


def _parsed(xmp: bytes) -> dict[str, str]:
    """The fields of `_PROPERTIES` in an XMP packet, written as attributes or as elements; none if it is broken."""
    root = _tree(xmp)
    found: dict[str, str] = {}
    for description in () if root is None else root.iter(f"{{{_RDF}}}Description"):
        for key, (space, name) in _PROPERTIES.items():
            value = _value(description, f"{{{space}}}{name}")
            if value is not None:
                found.setdefault(key, value)
    return found


def _tree(xmp: bytes) -> ElementTree.Element | None:
    # XMP has no document type, so a file that brings one is after the parser.
    if b"<!DOCTYPE" in xmp or b"<!ENTITY" in xmp:
        return None
    try:
        return ElementTree.fromstring(xmp.strip(b"\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError, LookupError):
        return None


def _value(description: ElementTree.Element, name: str) -> str | None:
    if name in description.attrib:
        return description.attrib[name]
    element = description.find(name)
    if element is None:
        return None
    return element.get(f"{{{_RDF}}}resource") or "".join(element.itertext()).strip() or None


def _merged(xmp: bytes, provenance: Provenance) -> bytes:
    """The packet with limner's fields in place of its own.

    As text, because a parser would rename the prefixes by which `exif_tags` and simple readers know the fields.
    """
    close = re.search(rb"</(\w+):RDF\s*>", xmp)
    if close is None or _tree(xmp) is None or close[1] != b"rdf":
        return provenance.xmp()
    ours = provenance._description().encode()
    merged = _without_ours(xmp[: close.start()]) + ours + xmp[close.start() :]
    fine = len(merged) <= _LARGEST_XMP and _parsed(merged).get("source_type") == provenance.source_type
    return merged if fine else provenance.xmp()


def _without_ours(xmp: bytes) -> bytes:
    for space, name in _PROPERTIES.values():
        for prefix in set(re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(space.encode()), xmp)):
            field = re.escape(prefix) + b":" + name.encode()
            xmp = re.sub(rb"\s" + field + rb"\s*=\s*(\"[^\"]*\"|'[^']*')", b"", xmp)
            xmp = re.sub(rb"<" + field + rb"\b[^>]*/>", b"", xmp)
            xmp = re.sub(rb"<" + field + rb"\b[^>]*>.*?</" + field + rb"\s*>", b"", xmp, flags=re.DOTALL)
    return xmp


# --------------------------------------------------------------------------------------------------------- C2PA

_MIME = {name: f"image/{name}" for name in images.FORMATS}


@dataclass(frozen=True)
class Signature:
    """What a C2PA manifest proves. `state`: "Trusted" (the chain ends at a given anchor), "Valid" (untouched, but the
    signer is not known) or "Invalid"; `problems`: codes of the C2PA specification; `source_type` and `generation`
    (model, bundle, seed, prompt) are what was signed.
    """

    state: str
    signer: str
    source_type: str
    generation: dict[str, Any]
    problems: tuple[str, ...] = ()


class Signer:
    """Signs files with a certificate chain and its private key; may be used by several threads.

    `certificate`: PEM file, the signing certificate first, then its issuers; C2PA refuses a certificate that signed
    itself. `key`: PEM file, without passphrase: EC P-256, P-384 or P-521, Ed25519, or RSA of 2048 bits and more.
    `timestamps`: address of an RFC 3161 time-stamping service; without it a signature is good only as long as the
    certificate is. Raises LimnerError when the package, a file or the pair is no good.
    """

    def __init__(self, certificate: str | Path, key: str | Path, *, timestamps: str | None = None) -> None:
        self._c2pa, self._timestamps = _package(), timestamps
        self._chain, self._key = _contents(Path(certificate)), _contents(Path(key))
        self._name = str(certificate)
        private = _private_key(Path(key), self._key)
        self._algorithm = _algorithm(Path(key), private)
        _check_pair(Path(certificate), self._chain, Path(key), private)

    def sign(self, data: bytes, format: str, *, parent: bytes | None = None) -> bytes:
        """`data`, a file in `format` (a key of images.FORMATS) that carries a Provenance, with a C2PA manifest.

        `parent`: for a picture that was not painted from nothing, the file that it was made from.
        """
        target = io.BytesIO()
        self._sign("the picture", data, format, target, parent)
        return target.getvalue()

    def sign_file(self, path: str | Path, *, parent: str | Path | None = None) -> None:
        """Sign a file where it stands: it is replaced whole, or stays as it is."""
        path = Path(path)
        target = io.BytesIO()
        origin = None if parent is None else _contents(Path(parent))
        self._sign(str(path), _contents(path), images.format_of(path), target, origin)
        images.write_bytes(target.getvalue(), path)

    def _sign(self, name: str, data: bytes, format: str, target: io.BytesIO, parent: bytes | None) -> None:
        origin = read(data)
        if origin is None:
            raise LimnerError(f"{name}: carries no provenance that could be signed; let limner write it first.")
        if origin.source_type != GENERATED and parent is None:
            raise LimnerError(f"{name}: was made from another picture; name that file as parent to sign this one.")
        with self._explained(name):
            maker = self._c2pa.Builder(_claim(origin), context=self._c2pa.Context.from_dict(_WITHOUT_THUMBNAILS))
            if origin.source_type != GENERATED and parent is not None:
                title = json.dumps({"title": "original", "relationship": "parentOf", "label": _PARENT})
                maker.add_ingredient(title, _mime_of(parent), io.BytesIO(parent))
            maker.sign(self._signer(), _MIME[format], io.BytesIO(data), target)

    def _signer(self) -> Any:
        stamps = None if self._timestamps is None else self._timestamps.encode()
        info = self._c2pa.C2paSignerInfo(self._algorithm, self._chain, self._key, stamps)
        return self._c2pa.Signer.from_info(info)

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except self._c2pa.C2paError as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise LimnerError(
                f"{name}: cannot be signed with {self._name} ({reason}); C2PA wants a certificate for signing "
                "(digitalSignature, e-mail protection or document signing) and its chain."
            ) from error


_PARENT = "parent"
# A thumbnail of a 64 px icon costs 29 kB and a tenth of a second.
_WITHOUT_THUMBNAILS = {"builder": {"thumbnail": {"enabled": False}}}


def sign(
    path: str | Path,
    certificate: str | Path,
    key: str | Path,
    *,
    parent: str | Path | None = None,
    timestamps: str | None = None,
) -> None:
    """Sign one written picture in place (see `Signer`)."""
    Signer(certificate, key, timestamps=timestamps).sign_file(path, parent=parent)


def signature(source: images.Source, *, anchors: str | Path | None = None) -> Signature | None:
    """The C2PA signature of a file, checked against its pixels; None when there is none.

    `anchors`: PEM file of the root certificates to trust. Raises LimnerError without the package or a readable file.
    """
    c2pa = _package()
    data = source if isinstance(source, bytes) else _contents(Path(source))
    trust = {} if anchors is None else {"trust": {"trust_anchors": _contents(Path(anchors)).decode("ascii", "replace")}}
    # Reading must not make the library call the addresses that a stranger's file names.
    rules = trust | {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    try:
        reader = c2pa.Reader.try_create(_mime_of(data), io.BytesIO(data), context=c2pa.Context.from_dict(rules))
        return None if reader is None else _signature(json.loads(reader.json()))
    except c2pa.C2paError as error:
        name = "the picture" if isinstance(source, bytes) else str(source)
        reason = " ".join(str(error).split()).rstrip(".")
        raise LimnerError(f"{name}: its C2PA manifest cannot be read ({reason}); do not rely on it.") from None


def _signature(store: dict[str, Any]) -> Signature:
    manifest = store["manifests"][store["active_manifest"]]
    assertions = {each["label"]: each["data"] for each in manifest.get("assertions", ())}
    actions = assertions.get("c2pa.actions.v2", assertions.get("c2pa.actions", {})).get("actions", ())
    kinds = [action["digitalSourceType"] for action in actions if "digitalSourceType" in action]
    signed = manifest.get("signature_info", {})
    return Signature(
        state=store.get("validation_state", "Invalid"),
        signer=signed.get("common_name") or signed.get("issuer") or "",
        source_type=kinds[-1] if kinds else "",
        generation=assertions.get(_GENERATION, {}),
        problems=tuple(problem["code"] for problem in store.get("validation_status", ())),
    )


_GENERATION = "limner.generation"


def _claim(origin: Provenance) -> dict[str, Any]:
    """The C2PA manifest: one action, and what limner knows of the making (C2PA specification 2, section 18.15)."""
    agent = {"name": "limner", "version": __version__}
    made: dict[str, Any] = {"action": "c2pa.created", "digitalSourceType": origin.source_type, "softwareAgent": agent}
    actions = [made]
    if origin.source_type != GENERATED:
        made["action"] = "c2pa.edited" if origin.source_type == EDITED else "c2pa.enhanced"
        actions = [{"action": "c2pa.opened", "parameters": {"ingredientIds": [_PARENT]}}, made]
    facts = {"model": origin.model, "bundle": origin.bundle, "seed": origin.seed, "prompt": origin.prompt}
    known = {key: value for key, value in facts.items() if value not in (None, "")}
    return {
        "claim_generator_info": [agent],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": _GENERATION, "data": known},
        ],
    }


@cache
def _package() -> ModuleType:
    try:
        import c2pa
        import cryptography  # noqa: F401  (comes with c2pa-python; reads the certificates)
    except ImportError as error:
        raise LimnerError(
            f"C2PA signatures need the package c2pa-python ({error}): run `pip install 'limner[provenance]'`."
        ) from None
    return c2pa


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LimnerError(f"{path}: cannot be read ({error.strerror}); check its name and permissions.") from None


def _mime_of(data: bytes) -> str:
    kinds = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"II": "tiff", b"MM": "tiff", b"GIF8": "gif"}
    found = next((kind for magic, kind in kinds.items() if data.startswith(magic)), "avif")
    return f"image/{found}"


def _private_key(path: Path, pem: bytes) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise LimnerError(f"{path}: is locked with a passphrase; write the key to a file without one.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise LimnerError(f"{path}: is no private key in PEM form; convert it with `openssl pkey`.") from None


def _algorithm(path: Path, key: PrivateKeyTypes) -> bytes:
    """C2PA's name of the signature algorithm for a key (C2PA specification 2, section 13.2)."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey):
        found = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}.get(key.curve.name)
        if found is not None:
            return found
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return b"ps256"
    raise LimnerError(f"{path}: C2PA has no use for this kind of key; use EC P-256, Ed25519 or RSA from 2048 bits.")


def _check_pair(certificate: Path, chain: bytes, key: Path, private: PrivateKeyTypes) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    first = _first_certificate(certificate, chain)
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if first.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        raise LimnerError(f"{key}: is not the private key of the first certificate in {certificate}; give the pair.")
    now = datetime.now(UTC)
    if not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
        start, end = first.not_valid_before_utc.date(), first.not_valid_after_utc.date()
        raise LimnerError(f"{certificate}: is valid from {start} to {end} only; renew it.")
    if first.issuer == first.subject:
        raise LimnerError(f"{certificate}: has signed itself, which C2PA refuses; have an authority issue one.")


def _first_certificate(path: Path, chain: bytes) -> Certificate:
    from cryptography.x509 import load_pem_x509_certificates

    with suppress(ValueError):
        return load_pem_x509_certificates(chain)[0]
    raise LimnerError(f"{path}: holds no certificate in PEM form; convert it with `openssl x509`.")
