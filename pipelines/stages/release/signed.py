"""Who signed: the key, the namespace, the bytes and the name in the trust root must all fit."""

from data_contracts.errors import BadInput, Refused
from pipelines.stages.protocols import Signatures


def check_signed(
    signatures: Signatures, what: str, namespace: str, message: bytes, signature: str, principal: str
) -> str:
    """The public key that signed this message, when it may sign as ``principal``. Raises `Refused` saying why not."""
    key, found = signatures.signer(signature)
    if found != namespace:
        raise Refused(f"wrong namespace: signed for {found!r}, {what} is signed for {namespace!r}")
    if not signatures.made_by(key, namespace, message, signature):
        raise Refused("the signature does not fit the statement: one of them was changed after signing")
    names = signatures.principals(namespace, message, signature)
    if not names:
        raise Refused(f"a stranger's key: {key} is not in the trust root for {namespace}")
    if principal not in names:
        raise Refused(f"the key signs as {', '.join(names)} in the trust root, not as {principal}")
    return key


def only_principal(signatures: Signatures, namespace: str, message: bytes, signature: str) -> str:
    """The one name of the key that signed this; empty for a stranger's. Raises `BadInput` when it has several."""
    names = signatures.principals(namespace, message, signature)
    if len(names) > 1:
        raise BadInput(f"your key has several names in the trust root: say which (--as {' | '.join(names)})")
    return names[0] if names else ""
