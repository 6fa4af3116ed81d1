"""Hyperparameter search by Optuna: each trial is a training run of its own recipe, as any other through the launcher.

Trials come one after another. The study is a journal on disk: a search that was killed goes on where it was, and draws
what it would have drawn.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.digests import hex_of
from data_contracts.errors import AssayError, Refused, Unavailable
from data_contracts.manifests import BaseManifest, CheckpointManifest, DatasetManifest
from data_contracts.searches import SearchManifest, Trial
from pipelines.recipes.edit import with_values
from pipelines.recipes.product import Product
from pipelines.recipes.recipe import load_recipe
from pipelines.recipes.search import Between, OneOf, Search, check_space
from pipelines.stages.protocols import Parts
from pipelines.stages.train import steps
from pipelines.stages.train.hardware import computes_bf16
from pipelines.stages.train.launcher import TrainerLauncher
from pipelines.stages.train.leftovers import forget_store, store_of
from pipelines.stages.train.pruning import Pruned, PruningLauncher

if TYPE_CHECKING:
    import optuna

_IN_A_ROW = 3
"""Trials that fail one after another before the search gives up: then it is not their values."""
_LEAST_FOR_IMPORTANCE = 4
_BEAT_S = 10.0
"""How often the seconds of a trial are noted, so that the budget counts those of one that was killed."""


def search(
    parts: Parts,
    product: Product,
    wanted: Search,
    base: BaseManifest,
    splits: DatasetManifest,
    launcher: TrainerLauncher,
    say: Callable[[str], None] = lambda told: None,
) -> tuple[SearchManifest, bool]:
    """Try values of the product's recipe until the trials or the device-hours are used up.

    More trials, or more hours, go on with the trials that were made. Raises `Refused` when no trial ran to its end.
    """
    shipped = product.file("recipe", product.recipe)
    folder = parts.home.resolve() / "searches"
    folder.mkdir(parents=True, exist_ok=True)
    check_space(wanted, shipped, folder)
    recipe = load_recipe(shipped).resolved(computes_bf16()).for_sft()
    code = code_version(*steps._TRAINER, __name__, "pipelines.stages.train.pruning")
    inputs = [base.digest, product.template_digest(), splits.digest]
    limits = {"trials", "device_hours"}
    asked = {
        "product": product.name,
        "recipe": recipe.payload(),
        "search": wanted.model_dump(mode="json", exclude=limits),
    }
    name = action_key("train/study", code, asked, inputs, wanted.seed)
    key = action_key("train/search", code, asked | wanted.model_dump(include=limits), inputs, wanted.seed)

    def work() -> SearchManifest:
        runs = _Runs(parts, product, wanted, base, splits, launcher, folder / hex_of(name), say)
        ended = runs.to_the_end()
        trials = tuple(_told(each) for each in runs.study.trials)
        complete = [each for each in trials if each.state == "complete"]
        if not complete:
            raise Refused(f"{product.name}: no trial of the search ran to its end ({_states(trials)}); give it more")
        best = min(complete, key=lambda each: (each.validation_loss or 0.0, each.number))
        return SearchManifest(
            product=product.name,
            base=base.digest,
            dataset=splits.digest,
            search=parts.store.put_manifest(wanted),
            recipe=parts.store.put_manifest(recipe),
            trials=trials,
            best=best.number,
            best_recipe=parts.store.put_bytes(with_values(shipped.read_text(), best.parameters).encode()),
            importance=_importance(runs.study, wanted.seed),
            ended=ended,
            device_hours=round(runs.seconds() / 3600, 4),
            action_key=key,
        )

    with parts.locks.hold(f"search-{hex_of(name)[:16]}"):
        return remembered(parts.store, key, SearchManifest, work)


class _Runs:
    """The trials of one study, each under its own recipe file in ``folder``."""

    def __init__(
        self,
        parts: Parts,
        product: Product,
        wanted: Search,
        base: BaseManifest,
        splits: DatasetManifest,
        launcher: TrainerLauncher,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.parts, self.product, self.wanted = parts, product, wanted
        self.base, self.splits, self.launcher, self.say = base, splits, launcher, say
        self.folder = folder
        self.text = product.file("recipe", product.recipe).read_text()
        folder.mkdir(exist_ok=True)
        self.study = _study(wanted, folder / "journal.log")

    def to_the_end(self) -> Literal["trials", "budget"]:
        """Which limit ended it."""
        from optuna.trial import TrialState

        for left in self.study.get_trials(states=(TrialState.RUNNING,)):
            self.study.tell(left.number, state=TrialState.FAIL)  # without a reason: it was interrupted
        space = {key: _distribution(values) for key, values in self.wanted.space.items()}
        failures = 0
        while len(done := [each for each in self.study.trials if not _interrupted(each)]) < self.wanted.trials:
            if self.seconds() >= self._budget:
                return "budget"
            # A sampler begins anew with each trial: it draws the same whether or not the search was interrupted.
            self.study.sampler = _sampler(self.wanted, len(done))
            trial = self.study.ask(space)
            self._run(trial)
            failed = self.study.trials[trial.number].state == TrialState.FAIL
            failures = failures + 1 if failed else 0
            if failures == _IN_A_ROW:
                reason = self.study.trials[trial.number].user_attrs["reason"]
                raise Refused(f"{self.product.name}: {failures} trials failed in a row, at last with: {reason}")
        return "trials"

    def seconds(self) -> float:
        return sum(float(each.user_attrs.get("seconds", 0.0)) for each in self.study.trials)

    @property
    def _budget(self) -> float:
        return self.wanted.device_hours * 3600

    def _run(self, trial: "optuna.Trial") -> None:
        """One training run, and what became of it."""
        from optuna.trial import TrialState

        told = ", ".join(f"{key} {_short(value)}" for key, value in trial.params.items())
        self.say(f"trial {trial.number}: {told}")
        file = self.folder / f"trial-{trial.number}.yaml"
        watch = _Watch(trial, self._budget - self.seconds())
        launcher = PruningLauncher(self.launcher, watch)
        try:
            file.write_text(with_values(self.text, trial.params))
            trial.set_user_attr("recipe", load_recipe(file).resolved(computes_bf16()).for_sft().digest)
            product = self.product.model_copy(update={"recipe": str(file)})
            made, _ = steps.sft(self.parts, product, self.base, self.splits, launcher)
        except Unavailable:
            watch.note()
            raise  # the search itself was told to stop: run again, it goes on from here
        except AssayError as error:
            pruned = isinstance(error, Pruned)
            watch.note()
            trial.set_user_attr("reason", str(error))
            self.study.tell(trial, state=TrialState.PRUNED if pruned and watch.seen else TrialState.FAIL)
            if launcher.run_dir is not None:
                # Nobody goes on with what it learned from rows.
                shutil.rmtree(launcher.run_dir, ignore_errors=True)
                forget_store(store_of(self.parts.checkpoints, launcher.run_dir))
            self.say(f"trial {trial.number} {'ended early' if pruned else 'failed'}: {error}")
        else:
            watch.note()
            watch.report(_curve(self.parts, made))
            trial.set_user_attr("checkpoint", made.digest)
            self.study.tell(trial, made.metrics["validation_loss"])
            self.say(f"trial {trial.number}: validation loss {made.metrics['validation_loss']:.4f}")


class _Watch:
    """Reports validations to the trial, notes its seconds, and says why to end it."""

    def __init__(self, trial: "optuna.Trial", budget_s: float) -> None:
        self.trial, self.budget_s = trial, budget_s
        self.started = time.monotonic()
        self.noted = 0.0
        self.seen: set[int] = set()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 1)

    def note(self) -> None:
        self.noted = self.seconds
        self.trial.set_user_attr("seconds", self.noted)

    def report(self, validations: Mapping[int, float]) -> None:
        for step, loss in validations.items():
            if step not in self.seen:
                self.trial.report(loss, step)
                self.seen.add(step)

    def __call__(self, validations: Mapping[int, float]) -> str:
        if self.seconds - self.noted >= _BEAT_S:
            self.note()
        new = validations.keys() - self.seen
        self.report(validations)
        if new and self.trial.should_prune():
            return f"validation loss {validations[max(new)]:.4f} at step {max(new)}: the median of trials was better"
        return "the search's device-hours are used up" if self.seconds >= self.budget_s else ""


def _study(wanted: Search, journal: Path) -> "optuna.Study":
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _mend(journal)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if wanted.pruner is not None:
        pruner = optuna.pruners.MedianPruner(wanted.pruner.startup_trials, wanted.pruner.startup_steps)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(
        storage=storage, study_name="search", load_if_exists=True, direction="minimize", pruner=pruner
    )


def _mend(journal: Path) -> None:
    """Take away what a search that was killed while it wrote has left: half a line, and Optuna's lock."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.is_file():
        whole = journal.read_bytes().rfind(b"\n") + 1
        os.truncate(journal, whole)


def _sampler(wanted: Search, done: int) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import RandomSampler, TPESampler

    return (TPESampler if wanted.sampler == "tpe" else RandomSampler)(seed=wanted.seed + done)


def _distribution(values: Between | OneOf) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, OneOf):
        return CategoricalDistribution(values.choices)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _curve(parts: Parts, made: CheckpointManifest) -> dict[int, float]:
    points = [point for point in parts.store.get_json(made.curve) if point["step"] > 0]
    return {point["step"]: point["validation_loss"] for point in points if point["validation_loss"] is not None}


def _interrupted(trial: "optuna.trial.FrozenTrial") -> bool:
    return trial.state.name == "FAIL" and "reason" not in trial.user_attrs


def _told(trial: "optuna.trial.FrozenTrial") -> Trial:
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[trial.state.name]
    return Trial.model_validate(
        {
            "number": trial.number,
            "parameters": trial.params,
            "state": "interrupted" if _interrupted(trial) else state,
            "validation_loss": trial.value if state == "complete" else None,
            "curve": sorted(trial.intermediate_values.items()),
            "seconds": trial.user_attrs.get("seconds", 0.0),
            "reason": trial.user_attrs.get("reason", ""),
            "recipe": trial.user_attrs.get("recipe"),
            "checkpoint": trial.user_attrs.get("checkpoint"),
        }
    )


def _importance(study: "optuna.Study", seed: int) -> dict[str, float]:
    """By functional ANOVA (Hutter et al., 2014) over the complete trials."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    values = [each.value for each in study.get_trials(states=(TrialState.COMPLETE,))]
    if len(values) < _LEAST_FOR_IMPORTANCE or len(set(values)) == 1:
        return {}
    return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed)))


def _states(trials: tuple[Trial, ...]) -> str:
    return "; ".join(f"trial {each.number} {each.state}: {each.reason}" for each in trials) or "none was begun"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
