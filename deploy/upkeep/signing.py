"""Signs images, and verifies them without a network.

`python -m upkeep.signing sign|verify --key <file> [<image> …]`

A signature is a file for each image: an in-toto statement in a DSSE envelope, as cosign's attestations are.
It names the image by the digest of its configuration, which covers every layer, and holds its bill of
materials. The key is an ECDSA key on P-256 in PEM (`openssl ecparam -name prime256v1 -genkey -noout`).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from upkeep import images
from upkeep.errors import UpkeepError
from upkeep.images import Image

_KIND = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_BILL = "https://cyclonedx.org/bom"
_WRONG_KEY = "The key must be an ECDSA key on P-256, in PEM."
_REPOSITORY = Path(__file__).resolve().parents[2]


class NotVerified(UpkeepError):
    """An image does not match a valid signature; the message says why."""


def sign(image: Image, key: bytes) -> dict[str, Any]:
    """Return the signed statement about `image`; `key` is a private key in PEM."""
    private = load_pem_private_key(key, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ValueError(_WRONG_KEY)
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": image.name, "digest": {"sha256": image.digest}}],
        "predicateType": _BILL,
        "predicate": image.bill,
    }
    payload = json.dumps(statement, sort_keys=True).encode()
    signature = private.sign(_authenticated(payload), ec.ECDSA(SHA256()))
    return {
        "payloadType": _KIND,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": _key_id(private.public_key()), "sig": base64.b64encode(signature).decode()}],
    }


def verify(image: Image, envelope: Mapping[str, Any], key: bytes) -> str:
    """Return the id of `key` if its holder has signed exactly this image, else raise `NotVerified`.

    `key` is a public key in PEM.

    The registry in the name is ignored, because images are copied to others. Service and version must match,
    so that an older image with its own signature is not accepted as a newer one.
    """
    public = load_pem_public_key(key)
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise ValueError(_WRONG_KEY)
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(one["sig"], validate=True) for one in envelope["signatures"]]
        is_statement = envelope["payloadType"] == _KIND
    except (KeyError, TypeError, ValueError) as error:
        raise NotVerified(f"{image.name}: the signature cannot be read.") from error
    if not is_statement or not any(_fits(public, signature, payload) for signature in signatures):
        raise NotVerified(f"{image.name}: there is no signature by this key.")
    statement = json.loads(payload)
    (subject,) = statement["subject"]
    if _short(subject["name"]) != _short(image.name):
        raise NotVerified(f"{image.name}: the signature is for {subject['name']}.")
    if subject["digest"]["sha256"] != image.digest:
        raise NotVerified(
            f"{image.name}: the image is {image.digest}, but {subject['digest']['sha256']} was signed."
        )
    if (statement["predicateType"], statement["predicate"]) != (_BILL, image.bill):
        raise NotVerified(f"{image.name}: the bill of materials is not the one that was signed.")
    return _key_id(public)


def main(arguments: Sequence[str] | None = None, *, look: Callable[[str], Image] = images.found) -> int:
    """Sign or verify the images of the command line, or those of compose.yaml; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m upkeep.signing", description=__doc__)
    parser.add_argument("verb", choices=("sign", "verify"))
    parser.add_argument("--key", type=Path, required=True, help="private (sign) or public (verify), in PEM")
    parser.add_argument("--folder", type=Path, default=Path("signatures"), help="folder of the signatures")
    parser.add_argument("images", nargs="*", help="names of local images")
    options = parser.parse_intermixed_args(arguments)
    try:
        key = options.key.read_bytes()
        for name in options.images or images.names(_REPOSITORY):
            file = options.folder / f"{_short(name).replace(':', '-')}.intoto.json"
            if options.verb == "sign":
                options.folder.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(sign(look(name), key)) + "\n", encoding="utf-8")
                sys.stdout.write(f"{file}\n")
            else:
                signer = verify(look(name), json.loads(file.read_text(encoding="utf-8")), key)
                sys.stdout.write(f"{name}: signed by the key {signer[:16]}\n")
    except (UpkeepError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _short(name: str) -> str:
    """Return service and version of an image: its name without registry and path."""
    return name.rpartition("/")[2]


def _authenticated(payload: bytes) -> bytes:
    """Return the bytes that are signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(_KIND), _KIND.encode(), len(payload), payload)


def _fits(public: ec.EllipticCurvePublicKey, signature: bytes, payload: bytes) -> bool:
    try:
        public.verify(signature, _authenticated(payload), ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _key_id(public: ec.EllipticCurvePublicKey) -> str:
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
