#!/usr/bin/env python3
"""Times PyTorch's FP8 and INT8 GEMMs on the GPU, one JSON line a shape, microseconds (medians).

The same shapes, data range and method as bench/cuda/gemm_bench: a graph of several launches over
rotating buffers, contenders in turn, each after 60 ms of rest (the card runs at its power limit).
Columns: per-tensor scales with fast accumulation, row-wise with and without it, GEMM followed by
`* a * b` (two steps), torch._int_mm without scales.

Run on the GPU machine: python3 tools/gemm_peers.py
"""
import json
import time

import torch

SHAPES = [(1024, 6144, 4096), (1024, 4096, 4096), (1024, 28672, 4096), (1024, 4096, 14336),
          (4096, 4096, 4096), (4096, 4096, 14336), (8192, 6144, 4096), (8192, 4096, 4096),
          (8192, 28672, 4096), (8192, 4096, 14336), (8192, 8192, 8192), (16384, 16384, 16384)]
ROTATED_BYTES = 160 << 20  # beyond twice the L2
REST_SECONDS = 0.06
ROUNDS = 3


def graph_median_us(run, flop):
    """Median microseconds of one launch, over replays of a graph of about 2 ms."""
    stream = torch.cuda.Stream()
    launches = int(min(24, max(2, 2e-3 / (flop / 1.2e15))))
    times = []
    with torch.cuda.stream(stream):
        for i in range(3):
            run(i)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(launches):
                run(i)
        time.sleep(REST_SECONDS)
        for i in range(9):
            begin = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            begin.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            if i >= 3:
                times.append(begin.elapsed_time(end) * 1e3 / launches)
    return sorted(times)[len(times) // 2]


def time_in_turn(contenders, flop):
    """Name -> microseconds: the median over the rounds."""
    times = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            times[name].append(graph_median_us(run, flop))
    return {name: round(sorted(t)[ROUNDS // 2], 1) for name, t in times.items()}


def measure(m, n, k):
    sets = max(1, min(8, ROTATED_BYTES // (m * k + n * k)))
    fp8 = torch.float8_e4m3fn
    a = [(torch.rand(m, k, device="cuda") * 2 - 1).to(fp8) for _ in range(sets)]
    b = [(torch.rand(n, k, device="cuda") * 2 - 1).to(fp8).t() for _ in range(sets)]
    one = torch.ones((), device="cuda")
    row, column = torch.rand(m, 1, device="cuda") + 0.5, torch.rand(1, n, device="cuda") + 0.5

    def scaled(i, x_scale, w_scale, fast):
        return torch._scaled_mm(a[i % sets], b[i % sets], x_scale, w_scale,
                                out_dtype=torch.bfloat16, use_fast_accum=fast)

    flop = 2 * m * n * k
    result = {"m": m, "n": n, "k": k}
    result |= time_in_turn({
        "tensor_fast": lambda i: scaled(i, one, one, True),
        "row_fast": lambda i: scaled(i, row, column, True),
        "row": lambda i: scaled(i, row, column, False),
        "two_step": lambda i: scaled(i, one, one, True) * row * column,
    }, flop)
    del a, b
    c = [torch.randint(-127, 127, (m, k), device="cuda", dtype=torch.int8) for _ in range(sets)]
    d = [torch.randint(-127, 127, (n, k), device="cuda", dtype=torch.int8).t()
         for _ in range(sets)]
    return result | time_in_turn({"int_mm": lambda i: torch._int_mm(c[i % sets], d[i % sets])},
                                 flop)


def main():
    torch.manual_seed(0)
    print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name()}))
    for shape in SHAPES:
        print(json.dumps(measure(*shape)), flush=True)


if __name__ == "__main__":
    main()
