"""``assay tenant ...``: what becomes of a tenant that leaves, and comes back."""

from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import BadInput
from pipelines.terminal import console
from pipelines.wiring import Line

app = typer.Typer(no_args_is_help=True, help="Archives of tenants, and the end of their weights.")


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
    what was revoked since stays away. A tenant that was shredded gets a new key, and its products answer again.

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


@app.command("shred")
def shred_tenant(
    tenant: Annotated[str, typer.Argument(help="The tenant, as its products name it.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="It cannot be undone here: only an archive brings it back.")
    ] = False,
) -> None:
    """Destroy the key of a tenant, so that nobody can read its weights any more, wherever copies of them lie sealed.
    Its API keys are void, and its products answer 410. After a crash, do the same again.

    Example: assay tenant shred acme --yes
    """
    from pipelines.stages.release.tenant_shred import shred

    if not yes:
        raise BadInput(f"the weights of tenant {tenant} will be lost but for archives: say so with --yes")
    line = Line()
    found = shred(line, line.products(), tenant)
    console.print(
        f"shredded: tenant {tenant}, key {found.key}  audit record {found.record}\n{len(found.releases)} releases, "
        f"{found.api_keys} API keys, {len(found.runs)} unfinished training runs"
    )
