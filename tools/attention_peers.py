#!/usr/bin/env python3
"""Times PyTorch's causal attention on the GPU (cuDNN and flash backends), one JSON line a shape.

The same heads (32 query, 8 KV; also 32 and 32, which some kernels prefer) and method as
bench/cuda/attention_bench: medians over replays of a graph of two launches.

Run on the GPU machine: python3 tools/attention_peers.py
"""
import json

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [(1, 2048, 128), (1, 4096, 128), (1, 8192, 128), (1, 16384, 128), (1, 32768, 128),
          (1, 4096, 64), (1, 16384, 64), (8, 1024, 128)]
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def graph_median_us(run):
    """Median microseconds of one launch."""
    stream = torch.cuda.Stream()
    times = []
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(2):
                run()
        for i in range(13):
            begin = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            begin.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            if i >= 3:
                times.append(begin.elapsed_time(end) * 1e3 / 2)
    return sorted(times)[len(times) // 2]


def measure(batch, tokens, dim):
    flop = 4 * 32 * dim * batch * tokens * (tokens + 1) / 2
    result = {"sequences": batch, "tokens": tokens, "head_dim": dim}
    for kv_heads in (32, 8):
        q = torch.randn(batch, 32, tokens, dim, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(batch, kv_heads, tokens, dim, device="cuda", dtype=torch.bfloat16)
                for _ in range(2))
        for name, backend in BACKENDS.items():
            try:
                with sdpa_kernel(backend):
                    us = graph_median_us(
                        lambda: torch.nn.functional.scaled_dot_product_attention(
                            q, k, v, is_causal=True, enable_gqa=kv_heads != 32))
                result[f"{name}_kv{kv_heads}_tflops"] = round(flop / us * 1e-6, 1)
            except RuntimeError as error:
                result[f"{name}_kv{kv_heads}"] = str(error)[:80]
    return result


def main():
    torch.manual_seed(0)
    print(json.dumps({"torch": torch.__version__, "cudnn": torch.backends.cudnn.version(),
                      "device": torch.cuda.get_device_name()}))
    for shape in SHAPES:
        print(json.dumps(measure(*shape)), flush=True)


if __name__ == "__main__":
    main()
