"""``assay tenant ...``: what becomes of a tenant that leaves, and comes back."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.terminal import console
from pipelines.wiring import Line

app = typer.Typer(no_args_is_help=True, help="Archives of tenants.")


@app.command("archive")
def archive_tenant(
    tenant: Annotated[str, typer.Argument(help="The tenant, as its products name it.")],
    out: Annotated[Path, typer.Option(help="New file; it appears only when it is whole.")],
    reader: Annotated[
        list[Path], typer.Option(help="Who can open it: an SSH public key file, Ed25519 or RSA. May be given again.")
    ],
) -> None:
    """Write all releases of a tenant into one encrypted file: weights, manifests, verdicts, approvals. Nothing is
    deleted.

    Example: assay tenant archive acme --out acme.age --reader ~/.ssh/id_ed25519.pub
    """
    from pipelines.stages.release.tenant_archive import archive
    from resources.age_file import sealed

    found = archive(Line(), tenant, sealed(out, reader))
    console.print(
        f"written: {out}  archive {found.digest}\n{len(found.releases)} releases, {len(found.trees)} trees of weights, "
        f"{len(found.documents)} documents; left out, as revoked: {len(found.left_out)}"
    )


@app.command("restore")
def restore_tenant(
    file: Annotated[Path, typer.Argument(help="A file that `assay tenant archive` wrote.")],
    key: Annotated[Path, typer.Option(help="SSH private key file, without a passphrase, of one of its readers.")],
) -> None:
    """Put an archive of this installation back into the store, every byte checked. What is there and whole stays, and
    what was revoked since stays away.

    Example: assay tenant restore acme.age --key ~/.ssh/id_ed25519
    """
    from pipelines.stages.release.tenant_archive import restore
    from resources.age_file import opened

    found = restore(Line(), opened(file, key))
    console.print(f"restored of tenant {found.archive.tenant}: archive {found.archive.digest}")
    for release in found.releases:
        console.print(f"  {release}")
    for release in found.revoked:
        console.print(f"  {release}  revoked since: its weights were left out")
