"""A person is erased from a copy of an installation while clients ask its gateway; then again under kill -9.

    python benchmarks/erasure.py --home .assay --trust .assay-trust/allowed_signers --person customer-c0080

The home itself is only read. Nothing may run in it.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from tests.support.drill import Clients, Drill, killed_rounds
from tests.support.installation import Installation, settings_in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--trust", type=Path, required=True, help="its allowed-signers file")
    parser.add_argument("--product", default="billing-assistant")
    parser.add_argument("--person", required=True, help="somebody whose rows the live release learned from")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=118)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copytree(given.home, folder / "home")
        (folder / "trust").mkdir()
        shutil.copy2(given.trust, folder / "trust" / "allowed_signers")
        installation = Installation(folder, settings_in(folder))
        try:
            drill(installation, given)
        finally:
            installation.assay("down")


def drill(installation: Installation, given: argparse.Namespace) -> None:
    made = Drill(installation, given.product, given.person, installation.folder / "kept")
    print(f"{len(made.texts)} texts of the person alone, found in: {', '.join(made.held_before)}", flush=True)
    made.set_back()
    with Clients(made) as clients:
        clients.wait_for_more()
        seconds = made.erase()
        clients.wait_for_more()
    fallback = made.live()
    receipt = made.check(fallback, clients.answers)
    begun = next(record for record in made.records() if record.event == "erasure.begun")
    revoked = next(record for record in made.records() if record.event == "release.revoked")
    print(
        f"erased in {seconds:.2f} s: {len(receipt.rows)} rows in {len(receipt.data_sets)} data sets, "
        f"{len(receipt.checkpoints)} checkpoints, {len(receipt.releases)} releases; {fallback or 'the base'} answers "
        f"from {(revoked.time - begun.time).total_seconds():.2f} s on; {len(clients.answers)} requests, none failed",
        flush=True,
    )
    for killed, finished in killed_rounds(made, fallback, given.kills, seconds, given.seed):
        print(
            f"killed after {killed.after:.2f} s{' with the gateway' if killed.with_gateway else ''}, "
            f"at {killed.event}; finished in {finished:.1f} s"
        )


if __name__ == "__main__":
    main()
