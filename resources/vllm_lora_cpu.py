"""Low-rank adapters on a CPU, one matrix product an adapter instead of one a token. Runs inside vLLM's worker, which
imports it for ``--worker-extension-cls``; on a GPU nothing of it is used.

vLLM's reference code copies an adapter's weights for every token (20 MB at rank 16 on all layers of SmolLM2-135M), and
gives a token without an adapter (index -1) the last slot's. Here such a token gets none.
"""

import torch
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu


class GroupedLora:
    """The extension that vLLM asks for: it adds nothing to the worker; importing this module is what counts."""


def grouped(inputs: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """``inputs[t] @ weights[indices[t]].T``, zeros where the index is negative.

    Shapes: inputs [tokens, in], weights [slots, out, in] or [slots, 1, out, in], indices [tokens] -> [tokens, out].
    """
    if weights.dim() == 4:
        weights = weights.squeeze(1)
    slots = torch.unique(indices).tolist()
    if len(slots) == 1 and slots[0] >= 0:
        return inputs @ weights[slots[0]].T.to(inputs.dtype)
    outputs = inputs.new_zeros(inputs.shape[0], weights.shape[1])
    for slot in slots:
        if slot >= 0:
            rows = indices == slot
            outputs[rows] = inputs[rows] @ weights[slot].T.to(inputs.dtype)
    return outputs


def bgmv_shrink(
    inputs: torch.Tensor,
    lora_b_weights: torch.Tensor,
    output_tensor: torch.Tensor,
    lora_indices_tensor: torch.Tensor,
    scaling: float = 1.0,
) -> None:
    outputs = grouped(inputs.to(output_tensor.dtype), lora_b_weights, lora_indices_tensor)
    output_tensor[:, : outputs.shape[1]] = scaling * outputs


def bgmv_expand(
    inputs: torch.Tensor,
    lora_b_weights: torch.Tensor,
    output_tensor: torch.Tensor,
    lora_indices_tensor: torch.Tensor,
    add_inputs: bool = True,
) -> None:
    size = min(lora_b_weights.shape[-2], output_tensor.shape[1])
    bgmv_expand_slice(inputs, lora_b_weights, output_tensor, lora_indices_tensor, 0, size, add_inputs)


def bgmv_expand_slice(
    inputs: torch.Tensor,
    lora_b_weights: torch.Tensor,
    output_tensor: torch.Tensor,
    lora_indices_tensor: torch.Tensor,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    outputs = grouped(inputs.to(output_tensor.dtype), lora_b_weights, lora_indices_tensor)
    place = output_tensor[: outputs.shape[0], slice_offset : slice_offset + slice_size]
    if add_inputs:
        place += outputs[:, :slice_size]
    else:
        place.copy_(outputs[:, :slice_size])


for module in (lora_ops, punica_cpu):
    for ours in (bgmv_shrink, bgmv_expand, bgmv_expand_slice):
        setattr(module, ours.__name__, ours)
