#!/usr/bin/env python3
"""PyTorch's scaled_dot_product_attention at the shapes that gpu_bench gives our attention kernels.

usage: sdpa.py [--quick] [--csv FILE] [--copy-rate GB/s] [--gemm-rate TFLOP/s]

Rows and CSV as gpu_bench's: times by CUDA events over replays of a graph, input sets that exceed the
L2 cache together, medians. Keys and values lie in dense tensors, not in pages. "packed" hands the
query heads of a KV head over as rows of one, so that keys are read once. The best backend counts and
is named. Exit code: 0, 77 without PyTorch or a device.
"""

import argparse
import math
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError as error:
    print(f"SKIPPED: no PyTorch ({error})")
    sys.exit(77)

HEADS, KV_HEADS = 32, 8
BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}


class Clock:
    """Microseconds of one call: (median, low, high)."""

    def __init__(self, device, quick):
        self.device, self.quick = device, quick
        self.cuda = device == "cuda"

    def once(self, work):
        if not self.cuda:  # to try this script where there is no device
            begin = time.perf_counter()
            work()
            return 1e3 * (time.perf_counter() - begin)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def measure(self, call, sets):
        def all_sets(count):
            for i in range(count):
                call(i % sets)

        all_sets(sets)
        each = max(1e-4, self.once(lambda: all_sets(sets)) / sets)
        count = sets * max(1, math.ceil(min(1.0 / each, 1000) / sets))
        work = self.graph(lambda: all_sets(count)) if self.cuda else lambda: all_sets(count)
        self.once(work)
        replay = max(1e-3, self.once(work))
        repeats = min(41, max(7, int((10 if self.quick else 40) / replay)))
        times = sorted(1e3 * self.once(work) / count for _ in range(repeats))
        tenth = repeats // 10
        return times[repeats // 2], times[tenth], times[-1 - tenth]

    def graph(self, work):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


class Table:
    def __init__(self, csv):
        self.csv = open(csv, "w") if csv else None
        self.write("kernel,shape,us,us_low,us_high,rate,unit,percent,error,headline,status")

    def write(self, line):
        if self.csv:
            print(line, file=self.csv, flush=True)

    def row(self, kernel, shape, times, work, unit, ceiling, status):
        median, low, high = times
        scale = 1e12 if unit == "TFLOP/s" else 1e9
        rate = work / (median * 1e-6) / scale
        percent = 100 * rate / ceiling if ceiling else 0
        print(f"{kernel:<17} {shape:<38} {median:>9.2f} us [{100 * (high - low) / median:>4.1f}%] "
              f"{rate:>7.1f} {unit:<7} {percent:>5.1f}%  {status}", flush=True)
        self.write(f"{kernel},{shape},{median:.3f},{low:.3f},{high:.3f},{rate:.2f},{unit},{percent:.1f},,1,{status}")

    def failure(self, kernel, shape, why):
        print(f"{kernel:<17} {shape:<38} {why}", flush=True)
        self.write(f"{kernel},{shape},,,,,,,,0,{why}")


class Bench:
    def __init__(self, arguments):
        self.device = arguments.device
        self.clock = Clock(arguments.device, arguments.quick)
        self.table = Table(arguments.csv)
        self.cold = 1
        if self.device == "cuda":
            self.cold = 3 * getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 64 << 20)
        self.copy_rate = arguments.copy_rate or self.measure_copy()
        self.gemm_rate = arguments.gemm_rate or self.measure_gemm()

    def random(self, *shape):
        return torch.randn(*shape, device=self.device, dtype=torch.bfloat16)

    def measure_copy(self):
        n = 1 << (29 if self.device == "cuda" else 20)
        source, target = self.random(n), torch.empty(n, device=self.device, dtype=torch.bfloat16)
        return 4 * n / self.clock.measure(lambda i: target.copy_(source), 1)[0] / 1e3

    def measure_gemm(self):
        n = 8192 if self.device == "cuda" else 64
        a, b = self.random(n, n), self.random(n, n)
        out = torch.empty_like(a)
        return 2 * n**3 / self.clock.measure(lambda i: torch.matmul(a, b.T, out=out), 1)[0] / 1e6

    def best(self, kernel, shape, calls, sets, work, unit, ceiling):
        """The fastest of some ways and backends."""
        found, trouble = None, "no backend takes it"
        for way, call in calls.items():
            for name, backend in BACKENDS.items():
                try:
                    with sdpa_kernel([getattr(SDPBackend, backend)]):
                        times = self.clock.measure(call, sets)
                except Exception as error:  # a backend that does not take the shape says so this way
                    lines = str(error).strip().splitlines()
                    trouble = f"{name}: {lines[0] if lines else type(error).__name__}"[:60]
                    continue
                if found is None or times[0] < found[0][0]:
                    found = times, f"{way} {name}"
        if found is None:
            self.table.failure(kernel, shape, f"skipped: {trouble}")
        else:
            self.table.row(kernel, shape, found[0], work, unit, ceiling, found[1])

    def decode(self, dim, batch, length):
        size = 4 * batch * length * KV_HEADS * dim
        sets = min(256, self.cold // size + 1)
        keys = [self.random(batch, KV_HEADS, length, dim) for _ in range(sets)]
        values = [self.random(batch, KV_HEADS, length, dim) for _ in range(sets)]
        query = self.random(batch, HEADS, 1, dim)
        packed = query.view(batch, KV_HEADS, HEADS // KV_HEADS, dim)
        calls = {
            "gqa": lambda i: F.scaled_dot_product_attention(query, keys[i], values[i], enable_gqa=True),
            "packed": lambda i: F.scaled_dot_product_attention(packed, keys[i], values[i]),
        }
        self.best("sdpa_decode", f"{HEADS}/{KV_HEADS}/{dim} BF16 {batch}x{length}", calls, sets, size, "GB/s",
                  self.copy_rate)

    def prefill(self, dim, tokens, before):
        length = before + tokens
        sets = min(64, self.cold // (4 * length * KV_HEADS * dim) + 1)
        keys = [self.random(1, KV_HEADS, length, dim) for _ in range(sets)]
        values = [self.random(1, KV_HEADS, length, dim) for _ in range(sets)]
        query = self.random(1, HEADS, tokens, dim)
        if before == 0:
            how = {"is_causal": True}
        else:
            from torch.nn.attention.bias import causal_lower_right

            how = {"attn_mask": causal_lower_right(tokens, length)}
        # Where grouped heads are not taken with this mask, keys and values come once per query head.
        wide = [[t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in side[:1]] for side in (keys, values)]
        calls = {
            "gqa": lambda i: F.scaled_dot_product_attention(query, keys[i], values[i], enable_gqa=True, **how),
            "all heads": lambda i: F.scaled_dot_product_attention(query, wide[0][0], wide[1][0], **how),
        }
        pairs = tokens * before + tokens * (tokens + 1) // 2
        shape = f"{HEADS}/{KV_HEADS}/{dim} BF16 {tokens} tokens" + (f" after {before}" if before else "")
        self.best("sdpa_prefill", shape, calls, sets, 4 * dim * HEADS * pairs, "TFLOP/s", self.gemm_rate)

    def run(self):
        small = self.device != "cuda"
        for dim in (128, 64):
            for batch, length in ((1, 1024), (1, 2048), (1, 4096), (1, 32768), (8, 4096), (32, 4096), (64, 512)):
                self.decode(dim, min(batch, 2) if small else batch, min(length, 64) if small else length)
        for dim in (128, 64):
            for tokens, before in ((512, 0), (2048, 0), (8192, 0), (512, 8192)):
                self.prefill(dim, min(tokens, 64) if small else tokens, min(before, 64) if small else before)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--csv")
    parser.add_argument("--copy-rate", type=float, default=0, help="GB/s")
    parser.add_argument("--gemm-rate", type=float, default=0, help="TFLOP/s")
    parser.add_argument("--device", default="cuda", help="cpu: tiny shapes, to try this script")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("SKIPPED: no CUDA device")
        sys.exit(77)
    print(f"PyTorch {torch.__version__}", flush=True)
    if arguments.device != "cuda":
        global BACKENDS
        BACKENDS = {"math": "MATH", **BACKENDS}
    with torch.inference_mode():
        Bench(arguments).run()


if __name__ == "__main__":
    main()
