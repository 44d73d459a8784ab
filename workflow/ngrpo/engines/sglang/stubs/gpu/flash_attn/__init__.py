"""Stands in for flash-attn 2 where it can't be installed: the same calls on PyTorch's own copy of its kernels.

On a CPU the same by scaled_dot_product_attention, sequence by sequence: what tests hold it to.
"""

import torch

__version__ = "2.7.4.post1"


def _wide(q, k, v):
    """Keys and values of each query head."""
    n = q.shape[-2] // k.shape[-2]
    return (k, v) if n == 1 else (k.repeat_interleave(n, -2), v.repeat_interleave(n, -2))


def _plain(q, k, v, scale, causal):
    """(L, H, D) queries against (S, H, D) keys; causal is aligned to the lower right, as in flash-attn."""
    L, S = q.shape[0], k.shape[0]
    mask = torch.ones(L, S, dtype=torch.bool, device=q.device).tril(S - L) if causal else None
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale)[0].transpose(0, 1)


def _refuse(dropout_p, window_size, softcap):
    if dropout_p or tuple(window_size) != (-1, -1) or softcap:
        raise NotImplementedError("dropout, windows and caps aren't in this stand-in")


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False,
    window_size=(-1, -1), softcap=0.0, **_,
):  # fmt: skip
    """q (total, H, D), k and v (total, H_kv, D), rows of sequences one after the other → (total, H, D)."""
    _refuse(dropout_p, window_size, softcap)
    k, v = _wide(q, k, v)
    if q.is_cuda:
        return torch.ops.aten._flash_attention_forward(
            q, k, v, cu_seqlens_q.int(), cu_seqlens_k.int(), int(max_seqlen_q), int(max_seqlen_k), 0.0, causal, False,
            scale=softmax_scale,
        )[0]  # fmt: skip
    at, to = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    return torch.cat(
        [
            _plain(q[a:b], k[c:d], v[c:d], softmax_scale, causal)
            for a, b, c, d in zip(at, at[1:], to, to[1:], strict=False)
        ]
    )


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, **_):
    """q (B, L, H, D), k and v (B, S, H_kv, D) → (B, L, H, D)."""
    _refuse(dropout_p, window_size, softcap)
    k, v = _wide(q, k, v)
    if q.is_cuda:
        return torch.ops.aten._flash_attention_forward(
            q, k, v, None, None, q.shape[1], k.shape[1], 0.0, causal, False, scale=softmax_scale
        )[0]
    return torch.stack([_plain(*rows, softmax_scale, causal) for rows in zip(q, k, v, strict=True)])
