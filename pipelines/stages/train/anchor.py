"""KL to the base during SFT, against forgetting (Li and Hoiem, 2016, arXiv:1606.09282, section 3)."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import kl_div


def hold_to_base(trainer: Any, weight: float, load_base: Callable[[], Any]) -> None:
    """Add ``weight`` * KL(base || model), the mean over the tokens that have a label, to the training loss.

    The base is the model with its adapter switched off; a model without one is held to a frozen copy that
    ``load_base`` reads. The validation loss stays the plain one, so that runs can be compared.
    """
    model = trainer.model
    adapted = hasattr(model, "disable_adapter")
    plain = model.get_base_model() if adapted else model
    frozen = plain if adapted else load_base().to(plain.device).eval().requires_grad_(False)
    caught: list[torch.Tensor] = []

    def catch(module: Any, inputs: Any, output: Any) -> None:
        caught.append(output.last_hidden_state)

    @contextmanager
    def as_base() -> Any:
        """Without adapter, dropout and embedding noise; in training mode again afterwards."""
        plain.eval()
        try:
            if adapted:
                with model.disable_adapter():
                    yield
            else:
                yield
        finally:
            plain.train()

    unheld = trainer.compute_loss

    def held(called: Any, inputs: dict[str, Any], *args: Any, num_items_in_batch: Any = None, **options: Any) -> Any:
        if not model.training:
            return unheld(called, inputs, *args, num_items_in_batch=num_items_in_batch, **options)
        hook = plain.base_model.register_forward_hook(catch)
        try:
            loss = unheld(called, inputs, *args, num_items_in_batch=num_items_in_batch, **options)
        finally:
            hook.remove()
        labels = inputs["labels"][:, 1:] != -100
        asked = {name: value for name, value in inputs.items() if name not in ("labels", "use_cache")}
        with trainer.accelerator.autocast():
            with torch.no_grad(), as_base():
                states = frozen.base_model(**asked, use_cache=False).last_hidden_state
                target = frozen.get_output_embeddings()(states[:, :-1][labels]).float().log_softmax(-1)
            # The first pass is the one with a gradient: label smoothing adds a second for its metrics.
            given = plain.get_output_embeddings()(caught[0][:, :-1][labels]).float().log_softmax(-1)
        caught.clear()
        tokens = labels.sum() if num_items_in_batch is None else num_items_in_batch
        return loss + weight * kl_div(given, target, log_target=True, reduction="sum") / tokens

    trainer.compute_loss = held
