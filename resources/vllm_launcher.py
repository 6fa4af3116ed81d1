"""The supervised vLLM program: end what a killed one left, check that the base is still the recorded one, then become
the server.

    python -m resources.vllm_launcher HOME/serve/plan.json
"""

import json
import os
import sys
from pathlib import Path

from data_contracts.digests import tree_digest, tree_files
from resources.processes import MARK, PROGRAM, end, title, titled


def main(plan_file: Path) -> None:
    owner, program = os.environ[MARK], os.environ[PROGRAM]
    end(titled(owner, program))  # vLLM's engine is a process of its own and outlives a kill of its server
    plan = json.loads(plan_file.read_bytes())
    for tree, folder in plan["trees"].items():
        found = tree_digest(tree_files(Path(folder)))
        if found != tree:
            sys.exit(f"refusing to serve {folder}: its files have digest {found}, recorded was {tree}")
    argv = plan["argv"]
    model = argv[argv.index("--model") + 1]
    if plan["trees"].get(plan["base"]["tree"]) != model:
        sys.exit(f"refusing to serve {model}: it is not the base that was recorded; remove {plan_file} and reconcile")
    os.execve(argv[0], argv, os.environ | plan["env"] | {"VLLM_PROCESS_NAME_PREFIX": title(owner, program)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
