"""Signatures over a whole folder, as OpenSSF model-signing makes them: a Sigstore bundle with a DSSE envelope, by an
elliptic-curve key (P-256). Whoever has the public key checks it with the `model_signing` command, offline."""

import base64
import json
import os
import tempfile
from pathlib import Path

from data_contracts.digests import hex_of, tree_files
from data_contracts.errors import BadInput, Refused

SIGNATURE = "model.sig"


class ModelSigner:
    """``key``: PEM of the private key. With ``make``, one is made where there is none."""

    def __init__(self, key: Path, make: bool) -> None:
        self.key = key
        self.make = make

    def public_key(self) -> str:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

        if not self.key.exists():
            self._create()
        try:
            private = load_pem_private_key(self.key.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise BadInput(f"{self.key} is no unencrypted private key in PEM ({error})") from error
        if not isinstance(private, EllipticCurvePrivateKey):
            raise BadInput(
                f"{self.key} is no elliptic-curve key: make one with openssl ecparam -name prime256v1 -genkey"
            )
        return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, folder: Path) -> bytes:
        from model_signing import hashing, signing

        self.public_key()
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / SIGNATURE
            every_file = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
            signer = signing.Config().use_elliptic_key_signer(private_key=self.key).set_hashing_config(every_file)
            signer.sign(folder, path)
            return path.read_bytes()

    def check(self, folder: Path, signature: bytes, public_key: str) -> None:
        """Raises `Refused` unless the key made this signature over every file of the folder, naming what differs. A
        file ``model.sig`` in it may be the signature itself."""
        from model_signing import hashing, verifying

        with tempfile.TemporaryDirectory() as temporary:
            key, bundle = Path(temporary) / "key.pub", Path(temporary) / SIGNATURE
            key.write_text(public_key)
            bundle.write_bytes(signature)
            others = hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE], ignore_git_paths=False)
            checker = verifying.Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(others)
            try:
                checker.verify(folder, bundle)
            except Exception as error:  # the library has no common error: a bad signature is cryptography's
                raise Refused(_difference(folder, signature) or f"the signature does not hold: {error!r}") from error

    def _create(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        if not self.make:
            raise BadInput(f"no key at {self.key}: ASSAY_RELEASE_KEY names the private key that signs releases")
        made = ec.generate_private_key(ec.SECP256R1())
        self.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.key.parent) as temporary:
            part = Path(temporary) / "key"
            with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as handle:
                handle.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            self.key.hardlink_to(part)


def _difference(folder: Path, signature: bytes) -> str:
    """The first file that is not as the signature says; empty when none differs, or when it cannot be read."""
    try:
        payload = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
        signed = {each["name"]: each["digest"] for each in payload["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError):
        return ""
    found = {name: hex_of(digest) for name, digest in tree_files(folder).items() if name != SIGNATURE}
    for name in sorted(signed.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in signed:
            return f"{name} is not signed: it was added"
        if signed[name] != found[name]:
            return f"{name} was changed: its bytes are not those that were signed"
    return ""
