"""The head of a model card: the metadata that Hugging Face's tools read, with every result as ``model-index``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_contracts.manifests import BaseManifest, DatasetManifest, ModelManifest
from evals.report import Measure
from pipelines.recipes.product import Product
from pipelines.stages.release.origins import Origin, licence_of, narrows

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_HUB = "hf://datasets/"


def front_matter(
    product: Product,
    base: BaseManifest,
    model: ModelManifest,
    origins: Sequence[Origin],
    line: Sequence[DatasetManifest],
    measured: Sequence[Measure],
) -> str:
    """YAML between dashes, of the form that huggingface_hub's ``ModelCardData`` checks and writes."""
    from huggingface_hub import ModelCardData

    narrowed = narrows(origins)
    on_the_hub = [each.source.removeprefix(_HUB) for each in origins if each.source.startswith(_HUB)]
    public = {"/".join(name.partition("@")[0].split("/")[:2]) for name in on_the_hub}
    data = ModelCardData(
        base_model=base.name,
        base_model_relation="finetune" if model.method == "full" else "adapter",
        datasets=sorted(public) or None,
        eval_results=[_result(each) for each in measured],
        language=_languages(line),
        library_name="transformers" if model.method == "full" else "peft",
        license="other" if narrowed else licence_of(base, origins),
        license_name=licence_of(base, origins) if narrowed else None,
        model_name=product.name,
        pipeline_tag="text-generation",
        tags=["assay", model.method, *(["synthetic-data"] if model.synthetic_share else [])],
    )
    return f"---\n{data.to_yaml()}\n---"


def _result(measure: Measure) -> "EvalResult":
    from huggingface_hub import EvalResult

    share = measure.scores["candidate"]
    return EvalResult(
        task_type="text-generation",
        dataset_type=measure.suite,
        dataset_name=measure.suite,
        dataset_revision=measure.edition,
        metric_type=measure.metric,
        metric_name=f"{measure.metric}, n = {measure.n}, interval {share.low:.4f} to {share.high:.4f}",
        metric_value=round(share.estimate, 4),
    )


def _languages(line: Sequence[DatasetManifest]) -> list[str] | None:
    """Of the mixture, where the language of its rows was told."""
    told: list[Any] = [each.facts["languages"] for each in line if "languages" in each.facts]
    return sorted({name for languages in told for name in languages} - {"und"}) or None
