"""A signature of an image covers one key and one image, and openssl verifies it as well."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from support.keys import release_key
from upkeep.errors import UpkeepError
from upkeep.images import Image, read
from upkeep.signing import NotVerified, main, sign, verify

IMAGE = Image("localhost/tickwire/email:0.1.0", "ab" * 32, {"components": [{"name": "asyncpg"}]})


def test_an_image_that_was_signed_is_verified(tmp_path: Path) -> None:
    private, public = release_key(tmp_path)
    envelope = sign(IMAGE, private.read_bytes())
    moved = replace(IMAGE, name="registry.example.com/ours/email:0.1.0")
    assert verify(IMAGE, envelope, public.read_bytes()) == verify(moved, envelope, public.read_bytes())


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (replace(IMAGE, digest="cd" * 32), "the image is cdcd.*, but abab.* was signed"),
        (replace(IMAGE, name="localhost/tickwire/email:0.2.0"), "is for localhost/tickwire/email:0.1.0"),
        (replace(IMAGE, bill={"components": []}), "bill of materials"),
    ],
)
def test_an_image_that_was_not_signed_is_not_verified(tmp_path: Path, image: Image, reason: str) -> None:
    private, public = release_key(tmp_path)
    with pytest.raises(NotVerified, match=reason):
        verify(image, sign(IMAGE, private.read_bytes()), public.read_bytes())


def test_a_signature_of_another_key_and_a_changed_statement_are_refused(tmp_path: Path) -> None:
    private, public = release_key(tmp_path)
    envelope = sign(IMAGE, private.read_bytes())
    _, other = release_key(tmp_path, "other")
    with pytest.raises(NotVerified, match="there is no signature by this key"):
        verify(IMAGE, envelope, other.read_bytes())
    statement = base64.b64decode(envelope["payload"]).replace(b"abab", b"cdcd")
    changed = {**envelope, "payload": base64.b64encode(statement).decode()}
    with pytest.raises(NotVerified, match="there is no signature by this key"):
        verify(replace(IMAGE, digest="cd" * 32), changed, public.read_bytes())
    with pytest.raises(NotVerified, match="cannot be read"):
        verify(IMAGE, {"payload": "?"}, public.read_bytes())


def test_openssl_alone_verifies_a_signature(tmp_path: Path) -> None:
    private, public = release_key(tmp_path)
    envelope = sign(IMAGE, private.read_bytes())
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    signed, signature = tmp_path / "signed", tmp_path / "signature"
    signed.write_bytes(f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload)
    signature.write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = (
        "openssl",
        "dgst",
        "-sha256",
        "-verify",
        str(public),
        "-signature",
        str(signature),
        str(signed),
    )
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "Verified OK"


def test_the_command_signs_and_verifies_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, public = release_key(tmp_path)
    words = ("--folder", str(tmp_path / "signatures"), IMAGE.name)
    assert main(["sign", "--key", str(private), *words], look=lambda _: IMAGE) == 0
    assert json.loads((tmp_path / "signatures/email-0.1.0.intoto.json").read_text())["payloadType"]
    assert main(["verify", "--key", str(public), *words], look=lambda _: IMAGE) == 0
    other = replace(IMAGE, digest="cd" * 32)
    assert main(["verify", "--key", str(public), *words], look=lambda _: other) == 1
    assert "was signed" in capsys.readouterr().err


def archive(
    file: Path, *, layers: list[bytes], names: list[bytes] | None = None, zipped: bool = False
) -> Path:
    """Write an archive as `docker save` does: layers, and a configuration with the digests of `names`."""
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in names or layers]
    members = {"config": json.dumps({"rootfs": {"diff_ids": digests}}).encode()}
    members |= {str(n): gzip.compress(layer) if zipped else layer for n, layer in enumerate(layers)}
    entry = {"Config": "config", "RepoTags": [IMAGE.name], "Layers": [str(n) for n in range(len(layers))]}
    members["manifest.json"] = json.dumps([entry]).encode()
    file.write_bytes(packed(members))
    return file


def packed(members: dict[str, bytes]) -> bytes:
    """Return a tar archive with these files."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as target:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            target.addfile(about, io.BytesIO(content))
    return written.getvalue()


LAYERS = [
    packed({"etc/os-release": b"debian"}),
    packed({"opt/tickwire/sbom.cdx.json": b'{"components": []}'}),
]


@pytest.mark.parametrize("zipped", [False, True], ids=["as they are", "compressed"])
def test_an_image_is_read_from_its_archive(tmp_path: Path, zipped: bool) -> None:
    file = archive(tmp_path / "image.tar", layers=LAYERS, zipped=zipped)
    image = read(file, IMAGE.name)
    assert image.bill == {"components": []}
    with tarfile.open(file) as found:
        assert image.digest == hashlib.sha256(found.extractfile("config").read()).hexdigest()  # type: ignore[union-attr]


def test_an_archive_with_another_layer_than_its_configuration_names_is_refused(tmp_path: Path) -> None:
    changed = [LAYERS[0], packed({"opt/tickwire/sbom.cdx.json": b'{"components": [], "x": 1}'})]
    file = archive(tmp_path / "image.tar", layers=changed, names=LAYERS)
    with pytest.raises(UpkeepError, match="the layer 1 does not match"):
        read(file, IMAGE.name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no archive", "cannot be read"), (packed({"manifest.json": b"[]"}), "cannot be read")],
)
def test_a_file_that_is_no_archive_of_one_image_is_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(content)
    with pytest.raises(UpkeepError, match=reason):
        read(file, IMAGE.name)


def test_an_image_without_a_bill_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UpkeepError, match="no bill of materials"):
        read(archive(tmp_path / "image.tar", layers=LAYERS[:1]), IMAGE.name)
