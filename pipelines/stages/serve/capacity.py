"""What serving a base with adapters takes, reckoned from the base's shapes before vLLM is started."""

from collections.abc import Sequence

from data_contracts.errors import BadInput, Refused
from data_contracts.frozen import Frozen
from pipelines.stages.train.estimate import Shapes, size
from pipelines.stages.train.hardware import Machine

GIB = 1 << 30
TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers that servers reserve adapter memory for; an adapter on any other layer is refused."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the greatest rank."""
BLOCK = 128
"""Tokens of a block of the key-value cache on a CPU."""


PROGRAM = 2_300_000_000
"""Bytes of vLLM's processes themselves, code, libraries and activations, as measured on a CPU: docs/benchmarks.md."""


class Sizing(Frozen):
    """How a server is to be: adapters it has room for, their greatest rank, tokens of the longest prompt with its
    answer, GiB of key-value cache, and bytes of a number (2 in bfloat16, 4 in float32)."""

    slots: int
    max_rank: int
    max_model_len: int
    kv_gib: int
    width: int


class Capacity(Frozen):
    """Bytes by what holds them, and what can be done with them: ``kv_tokens`` in the cache at once, ``at_once``
    requests of the full length, ``residents`` adapters of releases that are loaded at once."""

    program: int
    weights: int
    adapters: int
    kv_cache: int
    kv_tokens: int
    at_once: float
    residents: int

    @property
    def total(self) -> int:
        return self.program + self.weights + self.adapters + self.kv_cache


def merged_capacity(shapes: Shapes, sizing: Sizing) -> Capacity:
    """Of a server of merged weights, which has a cache of its own and no adapters."""
    return capacity(shapes, sizing.model_copy(update={"slots": 0}))


def allowed_rank(rank: int) -> int:
    """vLLM takes only some maxima: the smallest that holds ``rank``. Raises `BadInput` beyond them."""
    found = next((allowed for allowed in RANKS if allowed >= rank), None)
    if found is None:
        raise BadInput(f"ASSAY_SERVE_MAX_RANK is {rank}: vLLM takes {RANKS[-1]} at most")
    return found


def capacity(shapes: Shapes, sizing: Sizing) -> Capacity:
    """Weights in the served precision; for every slot both factors of every layer, at the greatest rank; a block of
    the cache holds keys and values of `BLOCK` tokens in every layer (PagedAttention, arXiv:2309.06180)."""
    layers = [shape for name, shape in shapes.linears().items() if name.rpartition(".")[2] in TARGET_MODULES]
    factors = allowed_rank(sizing.max_rank) * sum(sum(shape) for shape in layers)
    token = 2 * shapes.layers * shapes.keys * sizing.width
    tokens = sizing.kv_gib * GIB // (BLOCK * token) * BLOCK
    return Capacity(
        program=PROGRAM,
        weights=size(shapes.tensors) * sizing.width,
        adapters=sizing.slots * factors * sizing.width,
        kv_cache=sizing.kv_gib * GIB,
        kv_tokens=tokens,
        at_once=round(tokens / sizing.max_model_len, 2),
        residents=residents(sizing.slots),
    )


def residents(slots: int) -> int:
    """One slot stays empty, and one is the base's."""
    return max(slots - 2, 0)


def pinnable(residents: int) -> int:
    """One is left for what is not pinned: challengers, and what is being evaluated."""
    return max(residents - 1, 0)


def refuse_more_pinned_than_fit(products: Sequence[str], residents: int) -> None:
    """``products``: those whose adapters are pinned. Raises `Refused` naming them."""
    if len(products) > pinnable(residents):
        raise Refused(
            f"{', '.join(sorted(products))} are to be pinned, and {pinnable(residents)} adapters can be: raise "
            "ASSAY_SERVE_SLOTS, or let some have placement: dynamic"
        )


def refuse_what_cannot_be_served(needed: Capacity, sizing: Sizing, machine: Machine | None, beside: int = 0) -> None:
    """Raise `Refused` with the remedy when the cache does not hold one request of the full length, or when the machine
    has less memory than is needed, with the bytes that another server takes ``beside`` this one; of an unknown machine
    nothing can be said."""
    if needed.kv_tokens < sizing.max_model_len:
        raise Refused(
            f"the key-value cache of {sizing.kv_gib} GiB holds {needed.kv_tokens} tokens, and one request may have "
            f"{sizing.max_model_len}: raise ASSAY_SERVE_KV_GIB or lower ASSAY_SERVE_MAX_MODEL_LEN"
        )
    if machine is not None and needed.total + beside > machine.total:
        other = f"{beside / 1e9:.1f} by the server of adapters and here " if beside else ""
        raise Refused(
            f"serving needs about {(needed.total + beside) / 1e9:.1f} GB and the machine has "
            f"{machine.total / 1e9:.1f} GB: {other}"
            f"vLLM itself {needed.program / 1e9:.1f}, "
            f"weights {needed.weights / 1e9:.1f}, adapters {needed.adapters / 1e9:.1f}, key-value cache "
            f"{needed.kv_cache / 1e9:.1f}. Lower ASSAY_SERVE_KV_GIB, ASSAY_SERVE_SLOTS or ASSAY_SERVE_MAX_RANK"
        )
