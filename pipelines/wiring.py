"""Settings -> adapters, without Dagster: what the command line, the gateway, the trainer, assets and tests share."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from data_contracts.errors import BadInput
from pipelines.recipes.product import ROOT, KeptJudge, Product, load_product, product_names
from pipelines.settings import Settings
from resources.artifact_store import FsspecArtifactStore
from resources.audit_log import FileAuditLog
from resources.locks import FileLocks
from resources.ssh_signatures import SshSignatures
from resources.tenant_keys import TenantKeys

if TYPE_CHECKING:
    from fastapi import FastAPI

    from evals.protocols import JudgeModel
    from pipelines.stages.data.protocols import BatchEngine
    from pipelines.stages.release.export import Exporter
    from pipelines.stages.serve.capacity import Sizing
    from pipelines.stages.signals.overview import Consoles, Overview
    from pipelines.stages.signals.policy import SignalPolicy
    from pipelines.stages.train.launcher import TrainerLauncher
    from resources.answer_store import SqliteAnswers
    from resources.base_model import BaseModels
    from resources.dataset_store import ParquetDatasetStore
    from resources.embedding import SentenceEmbedder
    from resources.feedback import SqlFeedback
    from resources.keyring import SqliteKeyring
    from resources.language import LangidDetector
    from resources.ledger import SqlLedger
    from resources.merged_server import MergedServer
    from resources.moderation import ModerationEndpoint
    from resources.notifier import AppriseNotifier
    from resources.pii import PresidioAnalyzer
    from resources.registry import MlflowRegistry
    from resources.run_store import SqlRuns
    from resources.supervisor import Supervisor
    from resources.toxicity import ProfanityCheck
    from resources.traces import SqlTraces
    from resources.tree_signer import ModelSigner
    from resources.vllm_server import VllmServer


class Line:
    """One installation: each adapter is made when it is first asked for."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.home = self.settings.home.resolve()

    def product(self, name: str) -> Product:
        return load_product(name, self.settings.products)

    def products(self) -> list[Product]:
        return [self.product(name) for name in product_names(self.settings.products)]

    @property
    def signal_policy(self) -> "SignalPolicy":
        from pipelines.stages.signals.policy import load_policy

        return load_policy(self.settings.signals)

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.gateway_port}"

    @property
    def review_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.review_port}"

    @property
    def consoles(self) -> "Consoles":
        """Where Dagster and MLflow are to be seen: MLflow's own server where the settings name one, without a password
        that stands there."""
        from pipelines.stages.signals.overview import Consoles

        settings = self.settings
        own = urlsplit(settings.mlflow_uri)
        mlflow = f"http://127.0.0.1:{settings.mlflow_port}"
        if own.scheme in ("http", "https"):
            mlflow = urlunsplit((own.scheme, own.netloc.rpartition("@")[2], own.path.rstrip("/"), "", ""))
        return Consoles(dagster=f"http://127.0.0.1:{settings.dagster_port}", mlflow=mlflow)

    @cached_property
    def store(self) -> FsspecArtifactStore:
        url = self.settings.store_url or str(self.home / "store")
        return FsspecArtifactStore(url, self.home / "cache", self.tenant_keys)

    @property
    def vault(self) -> Path:
        return (self.settings.vault or self.home / "vault").resolve()

    @cached_property
    def tenant_keys(self) -> TenantKeys:
        return TenantKeys(self.vault / "tenants")

    @property
    def checkpoints(self) -> str:
        return self.settings.checkpoints

    @cached_property
    def locks(self) -> FileLocks:
        return FileLocks(self.home / "locks")

    @cached_property
    def log(self) -> FileAuditLog:
        return FileAuditLog(self.home / "chain", self.home / "keys" / "log_ed25519")

    @cached_property
    def signatures(self) -> SshSignatures:
        """Raises `BadInput` for a trust root inside ``home``: who can write the state could also name reviewers."""
        trust_root = self.settings.trust_root.resolve()
        if trust_root.is_relative_to(self.home):
            raise BadInput(f"the trust root {trust_root} lies inside ASSAY_HOME: keep it elsewhere (ASSAY_TRUST_ROOT)")
        return SshSignatures(trust_root)

    @cached_property
    def datasets(self) -> "ParquetDatasetStore":
        from resources.dataset_store import ParquetDatasetStore

        return ParquetDatasetStore(self.home / "rows")

    @cached_property
    def keyring(self) -> "SqliteKeyring":
        from resources.keyring import SqliteKeyring

        return SqliteKeyring(self.vault / "keys.sqlite")

    @cached_property
    def ledger(self) -> "SqlLedger":
        from resources.ledger import open_ledger

        return open_ledger(self.settings.ledger, self.home / "ledger.sqlite")

    @cached_property
    def runs(self) -> "SqlRuns":
        from resources.run_store import open_runs

        return open_runs(self.settings.ledger, self.home / "runs.sqlite")

    @property
    def hour_cost(self) -> float | None:
        return self.settings.hour_cost

    @cached_property
    def engine(self) -> "BatchEngine":
        from resources.batch_engine import open_engine

        return open_engine(self.settings.engine)

    def launcher(self, environment: Mapping[str, str]) -> "TrainerLauncher":
        """What starts a training process, with these variables added to its environment."""
        from resources.trainer_launcher import open_launcher

        return open_launcher(self.settings.launcher, self.mlflow_uri, environment)

    def exporter(self, format: str) -> "Exporter":
        """What writes a release in this format. Raises `BadInput` for another one."""
        from resources.gguf_model import GgufModel
        from resources.merged_model import MergedModel

        known: dict[str, Exporter] = {
            each.format: each for each in (MergedModel(), GgufModel("base"), GgufModel("q8_0"))
        }
        if format not in known:
            raise BadInput(f"no format {format!r}: name one of {', '.join(known)}")
        return known[format]

    @cached_property
    def pii(self) -> "PresidioAnalyzer":
        from resources.pii import PresidioAnalyzer

        return PresidioAnalyzer()

    @cached_property
    def toxicity(self) -> "ProfanityCheck":
        from resources.toxicity import ProfanityCheck

        return ProfanityCheck()

    @cached_property
    def language(self) -> "LangidDetector":
        from resources.language import LangidDetector

        return LangidDetector()

    @cached_property
    def embedder(self) -> "SentenceEmbedder":
        from resources.embedding import SentenceEmbedder

        return SentenceEmbedder(self.settings.embedding_model)

    @cached_property
    def judge(self) -> "JudgeModel | None":
        from resources.judge_model import open_judge

        given = self.settings
        return open_judge(
            given.judge_url,
            given.judge_model,
            given.judge_key_env,
            given.judge_template,
            given.judge_policy,
            given.judge_timeout,
        )

    def judge_of(self, named: KeptJudge) -> "JudgeModel":
        """The judge that a product names."""
        from resources.judge_model import judge_at

        given = self.settings
        policy, timeout = given.judge_policy, given.judge_timeout
        return judge_at(named.url, named.model, named.key_env, policy, timeout, "keep.judge.key_env")

    @cached_property
    def moderator(self) -> "ModerationEndpoint | None":
        from resources.moderation import open_moderator

        given = self.settings
        return open_moderator(given.filter_url, given.filter_model, given.filter_key_env)

    @cached_property
    def bases(self) -> "BaseModels":
        from resources.base_model import BaseModels

        return BaseModels()

    @cached_property
    def registry(self) -> "MlflowRegistry":
        from resources.registry import MlflowRegistry

        return MlflowRegistry(self.mlflow_uri, self.home / "mlflow" / "artifacts")

    @cached_property
    def signer(self) -> "ModelSigner":
        from resources.tree_signer import ModelSigner

        own = self.settings.release_key
        return ModelSigner(own or self.home / "keys" / "release_p256.pem", make=own is None)

    @cached_property
    def notifier(self) -> "AppriseNotifier":
        from resources.notifier import AppriseNotifier

        return AppriseNotifier(self.settings.notify, lambda url: self.keyring.subject(url))

    @cached_property
    def mlflow_uri(self) -> str:
        return self.settings.mlflow_uri or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @cached_property
    def answers(self) -> "SqliteAnswers":
        from resources.answer_store import SqliteAnswers

        return SqliteAnswers(self.home / "answers.sqlite")

    @cached_property
    def traces(self) -> "SqlTraces":
        from resources.traces import open_traces

        return open_traces(self.settings.traces, self.home / "traces.sqlite", self.home / "spool")

    @cached_property
    def feedback(self) -> "SqlFeedback":
        from resources.feedback import open_feedback

        return open_feedback(self.settings.traces, self.home / "feedback.sqlite", self.home / "feedback-spool")

    @cached_property
    def supervisor(self) -> "Supervisor":
        from resources.programs import prepare_dagster_home, standing_programs
        from resources.supervisor import Supervisor

        settings = self.settings
        ports = {
            "vllm": settings.vllm_port,
            "merged": settings.merged_port,
            "gateway": settings.gateway_port,
            "mlflow": settings.mlflow_port,
            "dagster": settings.dagster_port,
            "review": settings.review_port,
            "collector": settings.collector_port,
        }
        prepare_dagster_home(self.home)
        shared = settings.model_dump(mode="json", exclude_none=True) | {"home": str(self.home)}
        programs = standing_programs(self.home, ROOT, shared, ports, self.mlflow_uri, self._collects())
        return Supervisor(self.home / "run", self.home / "logs", ROOT, programs)

    def _collects(self) -> bool:
        """Whether some product keeps answers or feedback; a product file that cannot be read is others' to complain
        of."""
        with suppress(BadInput):
            return any(product.keep for product in self.products())
        return False

    @cached_property
    def server(self) -> "VllmServer":
        from resources.vllm_program import VllmProgram
        from resources.vllm_server import VllmServer

        settings = self.settings
        program = VllmProgram(
            "vllm", self.home / "serve" / "plan.json", settings.vllm_port, self.supervisor, settings.serve_python
        )
        return VllmServer(self.store, self.home / "serve", program, self._sizing())

    @cached_property
    def merged(self) -> "MergedServer":
        from resources.merged_server import MergedServer
        from resources.vllm_program import VllmProgram

        folder, settings = self.home / "merged", self.settings
        program = VllmProgram(
            "merged", folder / "plan.json", settings.merged_port, self.supervisor, settings.serve_python
        )
        return MergedServer(self.store, folder, program, self._sizing())

    def _sizing(self) -> "Sizing":
        from pipelines.stages.serve.capacity import Sizing
        from pipelines.stages.train.hardware import computes_bf16

        settings = self.settings
        return Sizing(
            slots=settings.serve_slots,
            max_rank=settings.serve_max_rank,
            max_model_len=settings.serve_max_model_len,
            kv_gib=settings.serve_kv_gib,
            width=2 if computes_bf16() else 4,
        )


def gateway_app() -> "FastAPI":
    """The gateway of the installation that the environment names (``uvicorn --factory``)."""
    import logging

    from pipelines.stages.serve.gateway import make_gateway
    from resources.telemetry import telemetry_of

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    line = Line()
    return make_gateway(line, line.products, line.settings.reconcile_seconds, telemetry=telemetry_of())


def collector_app() -> "FastAPI":
    """The collector of the installation that the environment names (``uvicorn --factory``)."""
    import logging

    from pipelines.stages.signals.collector import Collector
    from pipelines.stages.signals.collector_app import make_collector_app

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    line = Line()
    return make_collector_app(Collector(line, line.products))


def review_app() -> "FastAPI":
    """The review page and the overviews of the installation that the environment names (``uvicorn --factory``)."""
    from pipelines.stages.release.review_page import make_review_page
    from pipelines.stages.signals.overview_page import add_overviews

    line = Line()
    app = make_review_page(line, line.products)
    add_overviews(app, lambda name: overview_of(line, name))
    return app


def overview_of(line: Line, name: str) -> "Overview":
    """What `assay overview` and the page show."""
    from pipelines.stages.signals.overview import overview

    return overview(line, line.products(), name, lambda: line.supervisor.status(), line.consoles, datetime.now(UTC))
