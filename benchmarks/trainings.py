"""What benchmarks of training share: the demo's rows, a base as a folder, and runs of the real trainer program."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data_contracts.digests import sha256_bytes
from data_contracts.manifests import Stage
from data_contracts.records import ChatExample, PreferencePair
from pipelines.recipes.product import ROOT
from pipelines.recipes.recipe import Recipe
from pipelines.stages.data.generate import generated
from pipelines.stages.train.job import RunFiles, TrainJob
from resources.base_model import BaseModels

TEMPLATE = ROOT / "pipelines/templates/billing-assistant.jinja"
Rows = Sequence[ChatExample] | Sequence[PreferencePair]


class Used(NamedTuple):
    """``seconds`` of processor time, which other work on the machine hardly changes; ``peak`` is the resident set in
    bytes."""

    seconds: float
    peak: int


def base_folder(out: Path, where: str) -> Path:
    """The base that ``where`` names, as ASSAY_BASE_MODEL does, as a folder below ``out``."""
    base = out / "base"
    if not base.is_dir():
        part = out / "base.part"
        shutil.rmtree(part, ignore_errors=True)
        models = BaseModels()
        models.write(models.locate(where), part)
        part.rename(base)
    return base


def chats() -> list[ChatExample]:
    rows = [json.loads(line) for line in generated("billing-conversations").splitlines()]
    ends = [row for row in rows if row["messages"] and row["messages"][-1]["role"] == "assistant"]
    return [ChatExample.model_validate({key: row[key] for key in ("messages", "tools")}) for row in ends]


def pairs() -> list[PreferencePair]:
    rows = [json.loads(line) for line in generated("billing-preferences").splitlines()]
    return [
        PreferencePair.model_validate({key: row[key] for key in PreferencePair.model_fields})
        for row in rows
        if row["chosen"] != row["rejected"]
    ]


def write_job(
    folder: Path,
    stage: Stage,
    recipe: Recipe,
    rows: dict[str, Rows],
    base: Path,
    parent: Path | None = None,
    teacher: Path | None = None,
) -> None:
    """``rows`` has the splits ``train`` and ``validation``."""
    files = RunFiles(folder)
    files.rows.mkdir(parents=True, exist_ok=True)
    for split, some in rows.items():
        (files.rows / f"{split}.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in some))
    job = TrainJob(
        product="benchmark",
        stage=stage,
        recipe=recipe,
        base=base.resolve(),
        base_digest=sha256_bytes(str(base.name).encode()),
        template=TEMPLATE,
        train_rows=(files.rows / "train.jsonl").resolve(),
        validation_rows=(files.rows / "validation.jsonl").resolve(),
        row_names={split: tuple(row.digest for row in some) for split, some in rows.items()},
        parent=None if parent is None else parent.resolve(),
        teacher=None if teacher is None else teacher.resolve(),
        run_dir=folder.resolve(),
    )
    files.job.write_text(job.model_dump_json(indent=2))


def train(folder: Path) -> Used:
    """Run the trainer program on the job in ``folder`` to its end."""
    command = [sys.executable, "-m", "pipelines.stages.train.entry", str(RunFiles(folder).job.resolve())]
    with (folder / "trainer.log").open("a") as log:
        trainer = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        _, status, usage = os.wait4(trainer.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"the trainer ended with {os.waitstatus_to_exitcode(status)}: see {folder / 'trainer.log'}")
    return Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def drop_heavy(folder: Path) -> None:
    """All but the weights, the log and the figures."""
    files = RunFiles(folder)
    for heavy in (files.checkpoints, files.sweep, files.work, files.rows):
        shutil.rmtree(heavy, ignore_errors=True)
