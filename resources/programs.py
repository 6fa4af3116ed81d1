"""The programs of the standing system: vLLM, gateway, review page, MLflow, Dagster, and the collector where a
product keeps answers. All listen on this machine only."""

import sys
from pathlib import Path

from pydantic import JsonValue

from resources.supervisor import Program

DAGSTER_YAML = """\
# Written by `assay up` when there is none; yours to edit.
telemetry:
  enabled: false
nux:                # no newsletter form in the UI
  enabled: false
sensors:            # a slow one does not hold up the approvals
  use_threads: true
  num_workers: 4
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 60
concurrency:
  pools:
    granularity: run
    default_limit: 1
python_logs:
  python_log_level: DEBUG
  managed_python_loggers: [evals, pipelines, resources]
"""


def standing_programs(
    home: Path, root: Path, settings: dict[str, JsonValue], ports: dict[str, int], mlflow_uri: str, collects: bool
) -> tuple[Program, ...]:
    """``settings`` reach every program as ``ASSAY_*`` variables; ``ports`` maps program -> port. ``collects``: some
    product keeps answers or feedback."""
    environment = {f"ASSAY_{name.upper()}": str(value) for name, value in settings.items()}
    environment["PYTHONUNBUFFERED"] = "1"
    collector = Program(
        name="collector",
        command=(
            *(sys.executable, "-m", "uvicorn", "pipelines.wiring:collector_app", "--factory"),
            *("--host", "127.0.0.1", "--port", str(ports["collector"]), "--no-access-log", "--log-level", "info"),
        ),
        port=ports["collector"],
        setting="ASSAY_COLLECTOR_PORT",
        health="/healthz",
        environment=environment,
    )
    local = ("--host", "127.0.0.1", "--port")
    return (
        Program(
            name="vllm",
            command=(sys.executable, "-m", "resources.vllm_launcher", str(home / "serve" / "plan.json")),
            port=ports["vllm"],
            setting="ASSAY_VLLM_PORT",
            health="/health",
            environment=environment,
            with_the_rest=False,
        ),
        Program(
            name="merged",
            command=(sys.executable, "-m", "resources.vllm_launcher", str(home / "merged" / "plan.json")),
            port=ports["merged"],
            setting="ASSAY_MERGED_PORT",
            health="/health",
            environment=environment,
            with_the_rest=False,
            optional=True,
        ),
        Program(
            name="gateway",
            command=(
                *(sys.executable, "-m", "uvicorn", "pipelines.wiring:gateway_app", "--factory"),
                *(*local, str(ports["gateway"]), "--no-access-log", "--log-level", "info"),
                *("--http", "h11"),  # refuses headers beyond 64 KiB; httptools gathers them without end
            ),
            port=ports["gateway"],
            setting="ASSAY_GATEWAY_PORT",
            health="/healthz",
            environment=environment,
        ),
        Program(
            name="review",
            command=(
                *(sys.executable, "-m", "uvicorn", "pipelines.wiring:review_app", "--factory"),
                *(*local, str(ports["review"]), "--no-access-log", "--log-level", "info"),
            ),
            port=ports["review"],
            setting="ASSAY_REVIEW_PORT",
            health="/healthz",
            environment=environment,
        ),
        Program(
            name="mlflow",
            command=(
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1", *local, str(ports["mlflow"])),
                *("--backend-store-uri", mlflow_uri),
                *("--default-artifact-root", str(home / "mlflow" / "artifacts"), "--no-serve-artifacts"),
            ),
            port=ports["mlflow"],
            setting="ASSAY_MLFLOW_PORT",
            health="/health",
            environment=environment
            | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        ),
        Program(
            name="dagster",
            command=(
                *(sys.executable, "-m", "dagster", "dev", "--workspace", str(root / "workspace.yaml")),
                *("--host", "127.0.0.1", "--port", str(ports["dagster"])),
            ),
            port=ports["dagster"],
            setting="ASSAY_DAGSTER_PORT",
            health="/server_info",
            environment=environment | {"DAGSTER_HOME": str(home / "dagster")},
        ),
        *((collector,) if collects else ()),
    )


def prepare_dagster_home(home: Path) -> None:
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "dagster.yaml").exists():
        (folder / "dagster.yaml").write_text(DAGSTER_YAML)
