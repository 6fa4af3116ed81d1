"""A machine of a Ray cluster is lost in the middle of the work."""

import subprocess
import sys

import pytest

from pipelines.recipes.product import ROOT

PROGRAM = """
import os
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": 64 * "a", "RAY_USAGE_STATS_ENABLED": "0"}
import ray
from ray.cluster_utils import Cluster
from resources.batch_engine import open_engine
from tests.support.row_work import slow_square

machine = {"num_cpus": 1, "object_store_memory": 100 << 20}
cluster = Cluster(initialize_head=True, head_node_args=machine | {"include_dashboard": False})
other = cluster.add_node(**machine)
os.environ["RAY_ADDRESS"] = cluster.address
results, workers = [], set()
for result, worker in open_engine("ray").map(slow_square, range(60)):
    results.append(result)
    workers.add(worker)
    if len(results) == 20:
        cluster.remove_node(other, allow_graceful=False)
        cluster.add_node(**machine)
print(results == [number * number for number in range(60)], len(workers) > 2)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.drill
def test_a_lost_machine_changes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.stdout.splitlines()[-1] == "True True", done.stderr
