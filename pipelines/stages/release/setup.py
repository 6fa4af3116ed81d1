"""A new installation: its home and the audit log's key."""

from pipelines.stages.protocols import Parts


def initialise(parts: Parts) -> str:
    """Make home and log key unless they are there; the line that the trust root needs to check this log."""
    parts.home.mkdir(parents=True, exist_ok=True)
    return parts.log.signer_line()
