"""Stands in for vllm, from which sglang imports layer names on machines without CUDA."""
