"""Errors a user can act on: each says what is wrong, where, and what to do."""


class AssayError(Exception):
    """Base of the errors that the command line prints as one line, without a traceback."""


class BadInput(AssayError):
    """A file, row or field that does not fit; the message names it and the remedy."""


class Tampered(AssayError):
    """Content that does not match the digest it is named by."""


class Missing(AssayError):
    """A thing that a manifest names and the store does not hold."""


class Refused(AssayError):
    """An act that policy, evidence or state does not allow."""


class Unavailable(AssayError):
    """A service or a network that is needed now and cannot be reached."""


class Shredded(AssayError):
    """Weights whose key was destroyed on purpose: nobody can read them any more."""
