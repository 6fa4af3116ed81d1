"""OpenSSH signatures (``ssh-keygen -Y``): the keys allowed to sign lie in a file outside the store."""

import base64
import binascii
import subprocess
import tempfile
from pathlib import Path

from data_contracts.errors import BadInput, Refused


def sign(key: Path, namespace: str, message: bytes) -> str:
    """Armored SSH signature of ``message``. ``key`` is a private key file, or a public one held by ssh-agent."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "message"
        path.write_bytes(message)
        done = subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-q", "-f", str(key), "-n", namespace, str(path)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise Refused(f"could not sign with {key}: {done.stderr.strip()}. Is it a readable SSH private key?")
        return path.with_suffix(".sig").read_text()


def create_key(path: Path, comment: str) -> None:
    """Write a new ed25519 private key (mode 0600) at ``path``; whole or not at all, never over another."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / "key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(part)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        path.hardlink_to(part)


def public_key(key: Path) -> str:
    """``ssh-ed25519 AAAA...`` of a private key file, without its comment."""
    done = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(key)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise Refused(f"could not read the key {key}: {done.stderr.strip()}")
    return " ".join(done.stdout.split()[:2])


def signer_line(principal: str, namespace: str, public: str) -> str:
    """A line of an allowed-signers file: this key may sign as ``principal`` in this namespace only."""
    return f'{principal} namespaces="{namespace}" {public}'


def made_by(public: str, namespace: str, message: bytes, signature: str) -> bool:
    """Whether ``signature`` of ``message`` was made in this namespace by the key ``ssh-ed25519 AAAA...``."""
    with tempfile.TemporaryDirectory() as folder:
        allowed = Path(folder) / "allowed_signers"
        allowed.write_text(signer_line("signer", namespace, public) + "\n")
        return SshSignatures(allowed).principals(namespace, message, signature) == ["signer"]


class SshSignatures:
    """Verification against an OpenSSH allowed-signers file (see ssh-keygen(1), ALLOWED SIGNERS)."""

    def __init__(self, allowed_signers: Path) -> None:
        self.allowed_signers = allowed_signers

    def principals(self, namespace: str, message: bytes, signature: str) -> list[str]:
        """Principals whose key made this signature, in this namespace, at this time; empty when there is none."""
        if not self.allowed_signers.is_file():
            raise BadInput(
                f"no allowed-signers file at {self.allowed_signers}: name one with ASSAY_TRUST_ROOT or --trust-root"
            )
        try:
            key = self.signer(signature)[0].split()[1]
        except Refused:
            return []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "signature"
            path.write_text(signature)
            return [name for name in self._named_with(key) if self._verifies(name, namespace, message, path)]

    def made_by(self, public: str, namespace: str, message: bytes, signature: str) -> bool:
        return made_by(public, namespace, message, signature)

    def signer(self, signature: str) -> tuple[str, str]:
        """(public key ``ssh-ed25519 AAAA...``, namespace) that an armored signature names, true or not.

        The blob's fields are those of OpenSSH's PROTOCOL.sshsig. Raises `Refused` for anything else.
        """
        try:
            blob = base64.b64decode("".join(signature.strip().splitlines()[1:-1]), validate=True)
            if blob[:6] != b"SSHSIG":
                raise ValueError("no SSHSIG preamble")
            key, rest = _ssh_string(blob[10:])
            namespace, _ = _ssh_string(rest)
            return f"{_ssh_string(key)[0].decode()} {base64.b64encode(key).decode()}", namespace.decode()
        except (binascii.Error, ValueError) as error:
            raise Refused(f"not an SSH signature ({error}); make one with ssh-keygen -Y sign") from error

    def _named_with(self, key: str) -> list[str]:
        """Principals of the lines that hold this key (base64); ``find-principals`` knows the first line only."""
        lines = [line.split() for line in self.allowed_signers.read_text().splitlines() if not line.startswith("#")]
        return sorted({name for line in lines if key in line for name in line[0].split(",")})

    def _verifies(self, principal: str, namespace: str, message: bytes, signature: Path) -> bool:
        command = ["ssh-keygen", "-Y", "verify", "-f", str(self.allowed_signers), "-I", principal, "-n", namespace]
        return subprocess.run([*command, "-s", str(signature)], input=message, capture_output=True).returncode == 0


def _ssh_string(data: bytes) -> tuple[bytes, bytes]:
    """The length-prefixed string at the front, and what comes after it."""
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 + size or len(data) < 4:
        raise ValueError("cut short")
    return data[4 : 4 + size], data[4 + size :]
