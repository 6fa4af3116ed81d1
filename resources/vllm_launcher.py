"""The supervised vLLM program: end what a killed one left, check that the base is still the recorded one, then become
the server.

    python -m resources.vllm_launcher HOME/serve/plan.json
"""

import json
import os
import sys
from pathlib import Path

from data_contracts.digests import tree_digest, tree_files
from resources.processes import end_marked

MARK = "ASSAY_VLLM_PLAN"


def main(plan_file: Path) -> None:
    end_marked(MARK, str(plan_file))  # vLLM's engine is a process of its own and outlives a kill of its server
    plan = json.loads(plan_file.read_bytes())
    for tree, folder in plan["trees"].items():
        found = tree_digest(tree_files(Path(folder)))
        if found != tree:
            sys.exit(f"refusing to serve {folder}: its files have digest {found}, recorded was {tree}")
    os.execve(plan["argv"][0], plan["argv"], os.environ | plan["env"] | {MARK: str(plan_file)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
