"""Makes tests/data/golden/dequant.bin: random rows of every tensor type and what gguf-py makes of them.

    python make_dequant_golden.py OUTPUT_FOLDER

Bytes are random but for the float16 numbers of a block (and the plain floats), which are finite: in
turn of eight kinds, subnormal ones and zero among them, of either sign. Needs gguf and numpy.
The file is little-endian, for each type in turn:
    u32 GGUF type id, u32 number of values n, u32 number of bytes, the bytes, n float32 values
"""

import pathlib
import struct
import sys

import gguf
import numpy as np

SEED = 20240717
# Offsets of the float16 numbers of a block.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}  # fmt: skip
BLOCKS = {32: 24, 256: 8}  # values of a block: blocks of a row
FLOATS = 64


def finite(rng, i, dtype, mantissa_bits, exponents):
    """Bits of the i-th number: a float whose exponent field is below `exponents`, all ones."""
    mantissa = int(rng.integers(1, 1 << mantissa_bits))
    normal, small = (int(rng.integers(low, high)) for low, high in [(1, exponents), (exponents // 3, exponents // 2)])
    magnitude = [
        normal << mantissa_bits | mantissa,
        mantissa,  # subnormal
        small << mantissa_bits | mantissa,  # below one, as real scales are
        (1 << mantissa_bits) - 1,  # the largest subnormal
        1 << mantissa_bits,  # the smallest normal
        (exponents << mantissa_bits) - 1,  # the largest
        0,
        1,  # the smallest subnormal
    ][i % 8]
    return dtype(magnitude | int(rng.integers(2)) << (dtype().itemsize * 8 - 1))


def random_row(rng, name):
    if name == "F32":
        return np.array([finite(rng, i, np.uint32, 23, 255) for i in range(FLOATS)]).view(np.uint8)
    if name == "F16":
        return np.array([finite(rng, i, np.uint16, 10, 31) for i in range(FLOATS)]).view(np.uint8)
    if name == "BF16":
        return np.array([finite(rng, i, np.uint16, 7, 255) for i in range(FLOATS)]).view(np.uint8)
    values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (BLOCKS[values], size), dtype=np.uint8)
    for i, block in enumerate(blocks):
        for k, offset in enumerate(HALVES[name]):
            block[offset : offset + 2] = np.array([finite(rng, i + 5 * k, np.uint16, 10, 31)]).view(np.uint8)
    return blocks.ravel()


def main():
    rng = np.random.default_rng(SEED)
    out = bytearray()
    for name in ["F32", "F16", "BF16", *HALVES]:
        kind = gguf.GGMLQuantizationType[name]
        row = random_row(rng, name)
        values = gguf.quants.dequantize(row, kind).astype("<f4")
        assert np.isfinite(values).all() and np.unique(values).size > values.size // 32, name
        out += struct.pack("<III", kind, values.size, row.size) + row.tobytes() + values.tobytes()
    pathlib.Path(sys.argv[1], "dequant.bin").write_bytes(out)


if __name__ == "__main__":
    main()
