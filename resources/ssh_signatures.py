"""OpenSSH signatures (``ssh-keygen -Y``): the keys allowed to sign lie in a file outside the store."""

import subprocess
import tempfile
from pathlib import Path

from data_contracts.errors import Refused


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


class SshSignatures:
    """Verification against an OpenSSH allowed-signers file (see ssh-keygen(1), ALLOWED SIGNERS)."""

    def __init__(self, allowed_signers: Path) -> None:
        self.allowed_signers = allowed_signers

    def principals(self, namespace: str, message: bytes, signature: str) -> list[str]:
        """Principals whose key made this signature, in this namespace, at this time; empty when there is none."""
        if not self.allowed_signers.exists():
            raise Refused(
                f"no allowed-signers file at {self.allowed_signers}: name one with ASSAY_TRUST_ROOT or --trust-root"
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "signature"
            path.write_text(signature)
            found = self._ssh("find-principals", path)
            return [
                name
                for name in found.stdout.decode().split()
                if self._ssh("verify", path, "-I", name, "-n", namespace, message=message).returncode == 0
            ]

    def _ssh(self, act: str, signature: Path, *more: str, message: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["ssh-keygen", "-Y", act, "-f", str(self.allowed_signers), "-s", str(signature), *more]
        return subprocess.run(command, input=message, capture_output=True)
