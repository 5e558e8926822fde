"""Runs PTX on a CPU: one program (CTA) after the other, the lanes of a warp as a numpy axis.

Warps run in random order between barriers.  Every access is checked: bounds (tensors lie apart), alignment, memory and
registers that nobody wrote, and two threads at one address without a barrier between them, of which one writes.
Branches on which the lanes of a warp disagree and unknown instructions are errors that name them.
"""

import collections
import re

import numpy as np
import torch

LANES = np.arange(32)
TYPES = {
    **{
        f"{kind}{bits}": np.dtype(f"{code}{bits}")
        for kind, code in (("b", "uint"), ("u", "uint"), ("s", "int"))
        for bits in (8, 16, 32, 64)
    },
    "f16": np.dtype("float16"),
    "f32": np.dtype("float32"),
    "f64": np.dtype("float64"),
    "pred": np.dtype("bool"),
}
WIDE = {"u16": np.uint32, "s32": np.int64, "u32": np.uint64}


class PtxError(Exception):
    """The program did what a GPU would not forgive, or what is not known here."""


def divide(a, b):
    if a.dtype.kind == "f":
        return a / b
    quotient = np.abs(a.astype(np.int64)) // np.maximum(np.abs(b.astype(np.int64)), 1)
    return (quotient * np.where((a < 0) != (b < 0), -1, 1)).astype(a.dtype)


def halves(value, brain):
    """Bits of float32 rounded to half precision."""
    dtype = torch.bfloat16 if brain else torch.float16
    return torch.from_numpy(value.copy()).to(dtype).view(torch.int16).numpy().view(np.uint16)


BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mul.lo": np.multiply,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "min": np.fmin,
    "max": np.fmax,
    "div": divide,
    "rem": lambda a, b: a - divide(a, b) * b,
    "shl": lambda a, b: a << np.minimum(b, 8 * a.itemsize - 1).astype(a.dtype),
    "shr": lambda a, b: a >> np.minimum(b, 8 * a.itemsize - 1).astype(a.dtype),
}
UNARY = {
    "neg": np.negative,
    "abs": np.abs,
    "not": np.invert,
    "mov": lambda a: a,
    "ex2": np.exp2,
    "sqrt": np.sqrt,
    "rcp": np.reciprocal,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "lg2": np.log2,
}
COMPARE = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
TERNARY = {
    "mad.lo": lambda a, b, c: a * b + c,
    "fma": lambda a, b, c: (a.astype(np.float64) * b + c).astype(a.dtype),
}


class Region:
    """Bytes at an address of their own, with who wrote and who read each of them, and when."""

    def __init__(self, data, written, valid, base, single=False):
        self.data, self.written, self.valid, self.base = data, written, valid, base
        self.single = single  # whether it holds float32
        self.start_program()

    def start_program(self):
        self.writer, self.reader = (np.full(len(self.data), -1) for _ in range(2))
        self.wrote, self.read = (np.full(len(self.data), -1) for _ in range(2))


class Memory:
    """Tensors at invented addresses, 4 GB apart, as far off 256 bytes as they really are; remembers what was written.

    `unwritten` tensors hold nothing until a kernel writes it.
    """

    def __init__(self):
        self.regions, self.kept = {}, []

    def tensor(self, tensor, unwritten=False):
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())) if tensor.numel() else id(tensor)
        if key not in self.regions:
            extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
            extent = extent if tensor.numel() else 0
            flat = tensor.detach().as_strided((extent,), (1,)) if extent else tensor.detach().reshape(-1)
            valid = torch.zeros(extent, dtype=torch.bool)
            if extent:
                valid.as_strided(tensor.shape, tensor.stride())[...] = True
            valid = np.repeat(valid.numpy(), tensor.element_size())
            written = np.zeros_like(valid) if unwritten else valid.copy()
            base = (len(self.regions) + 1 << 32) + tensor.data_ptr() % 256
            single = tensor.dtype == torch.float32
            self.regions[key] = Region(flat.view(torch.uint8).numpy(), written, valid, base, single)
            self.kept.append(tensor)
        return self.regions[key].base


class Warp:
    def __init__(self, first, count):
        self.threads, self.registers, self.at, self.since = first + LANES, {}, 0, 0
        self.special = {"%tid.x": self.threads, "%tid.y": 0, "%tid.z": 0, "%ntid.x": count, "%laneid": LANES}


class Machine:
    """`run(grid, arguments)` executes a kernel's PTX; `counts` holds how often a warp ran which instruction."""

    def __init__(self, ptx, warps, shared, memory, seed=0):
        self.warps, self.shared_bytes, self.memory = warps, shared, memory
        self.random, self.counts = np.random.default_rng(seed), collections.Counter()
        body = re.sub(r"//[^\n]*", "", ptx)
        header, body = body[body.index(".entry") :].split("{", 1)
        self.parameters = re.findall(r"\.param\s[^,)]*?(\w+)\s*(?=[,)])", header)
        self.code, self.labels = [], {}
        for line in body.splitlines():
            label = re.match(r"\s*(\$\w+):", line)
            if label:
                self.labels[label[1]] = len(self.code)
            found = re.match(r"\s*(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*?);\s*$", line)
            if found:
                operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", found[4])
                self.code.append((found[2], bool(found[1]), found[3].replace("::cta", ""), operands, line.strip()))

    def run(self, grid, arguments):
        values = dict(zip(self.parameters, [*arguments, *[0] * len(self.parameters)], strict=False))
        for program in range(grid):
            self.clock = self.since = 0
            self.shared = Region(*(np.zeros(self.shared_bytes, t) for t in (np.uint8, bool)), None, 0)
            self.shared.valid = np.ones(self.shared_bytes, bool)
            for region in self.memory.regions.values():
                region.start_program()
            warps = [Warp(32 * i, 32 * self.warps) for i in range(self.warps)]
            for warp in warps:
                warp.special |= {"%ctaid.x": program, "%ctaid.y": 0, "%ctaid.z": 0, "%nctaid.x": grid}
            with np.errstate(all="ignore"):
                while True:
                    waiting = [self.advance(warps[i], values) for i in self.random.permutation(self.warps)]
                    if not any(waiting):
                        break
                    if not all(waiting):
                        raise PtxError("a barrier that not every warp reaches")
                    self.clock += 1
                    self.since = self.clock

    def advance(self, warp, values):
        """Up to the next barrier (True) or the end (False)."""
        while True:
            predicate, negated, name, operands, line = self.code[warp.at]
            warp.at += 1
            self.counts[name] += 1
            try:
                mask = None if predicate is None else warp.registers[predicate] ^ negated
                if name in ("ret", "exit"):
                    return False
                if name in ("bra", "bra.uni"):
                    if mask is not None and mask.any() != mask.all():
                        raise PtxError("the lanes of a warp branch apart")
                    if mask is None or mask.all():
                        warp.at = self.labels[operands[0]]
                elif name in ("bar.sync", "barrier.sync"):
                    return True
                elif name == "bar.warp.sync":
                    self.clock += 1
                    warp.since = self.clock
                else:
                    self.step(warp, name, operands, mask, values)
            except PtxError as error:
                raise PtxError(f"{error}: {line}") from None
            except KeyError as error:
                known = "%" in str(error)
                what = f"{error} is read, but nobody wrote it" if known else f"unknown instruction {name}"
                raise PtxError(f"{what}: {line}") from None

    def get(self, warp, operand, kind):
        dtype = TYPES[kind]
        if operand.startswith("%"):
            if operand in warp.special:
                return np.broadcast_to(np.asarray(warp.special[operand]).astype(dtype), 32)
            value = warp.registers[operand]
            if value.itemsize != dtype.itemsize:
                value = value.astype(f"uint{8 * dtype.itemsize}")
            return value.view(dtype)
        if operand.startswith("0f"):
            return np.full(32, int(operand[2:], 16), np.uint32).view(dtype)
        number = 0 if operand == "global_smem" else int(operand, 0)
        return np.full(32, number & (1 << 8 * dtype.itemsize) - 1, f"uint{8 * dtype.itemsize}").view(dtype)

    def put(self, warp, register, value, mask=None):
        value = np.asarray(value)
        if value.dtype != bool:
            bits = {"%rs": 16, "%rd": 64}.get(register[:3], 32)
            if bits != 8 * value.itemsize:
                value = value.astype(f"int{bits}" if value.dtype.kind == "i" else f"uint{bits}")
            value = value.view(f"uint{bits}")
        if mask is not None:  # lanes that it leaves out keep what they have; ones, as a number NaN, if that is nothing
            value = np.where(mask, value, warp.registers.get(register, ~np.zeros_like(value)))
        warp.registers[register] = value

    def step(self, warp, name, operands, mask, values):
        base, _, kind = name.rpartition(".")
        base = re.sub(r"\.(approx|full|rn|ftz)", "", base)  # how a result is rounded
        get = lambda index, of=kind: self.get(warp, operands[index], of)  # noqa: E731
        put = lambda value: self.put(warp, operands[0], value, mask)  # noqa: E731
        root = name.split(".")[0]
        if base == "ld.param":
            value = values[operands[1].strip("[]")]
            raw = np.float32(value).view(np.uint32) if isinstance(value, float) else int(value)
            put(
                np.full(
                    32, raw, np.int64 if kind[1:] == "64" or kind[0] == "s" else np.uint32 if raw >= 0 else np.int32
                )
            )
        elif root in ("ld", "st", "ldmatrix"):
            self.access(warp, name, operands, mask)
        elif name.startswith("mov.b") and operands[0][0] == "{":
            parts = re.findall(r"[%\w]+", operands[0])
            for part, value in zip(parts, np.split(get(1).view("uint16").reshape(32, -1), len(parts), 1), strict=True):
                self.put(warp, part, value.copy().view(f"uint{16 * value.shape[1]}")[:, 0], mask)
        elif name.startswith("mov.b") and operands[1][0] == "{":
            bits = int(kind[1:]) // len(parts := re.findall(r"[%\w]+", operands[1]))
            put(np.stack([self.get(warp, p, f"b{bits}") for p in parts], 1).copy().view(f"uint{kind[1:]}")[:, 0])
        elif root == "shfl" and kind == "b32":
            mode = name.split(".")[2]
            amount, bounds = (self.get(warp, operand, "s32") for operand in operands[2:4])
            part = bounds >> 8 & 31  # bits of a lane that name the part of the warp it stays in
            last = LANES & part | bounds & 31 & ~part
            source = {
                "bfly": LANES ^ amount,
                "idx": LANES & part | amount & 31 & ~part,
                "up": LANES - amount,
                "down": LANES + amount,
            }[mode]
            there = source >= last if mode == "up" else source <= last
            value = get(1)[np.where(there, source, LANES)]
            for to, what in zip(operands[0].split("|"), (value, there)):
                self.put(warp, to, what, mask)
        elif base in ("shl", "shr"):
            put(
                np.where(get(2, "u32") < 8 * TYPES[kind].itemsize, BINARY[base](get(1), get(2, "u32")), 0).astype(
                    TYPES[kind]
                )
            )
        elif base in BINARY:
            put(BINARY[base](get(1), get(2)))
        elif base in UNARY:
            put(UNARY[base](get(1)))
        elif base in TERNARY:
            put(TERNARY[base](get(1), get(2), get(3)))
        elif base in ("mul.wide", "mad.wide"):
            product = get(1).astype(WIDE[kind]) * get(2).astype(WIDE[kind])
            put(product if root == "mul" else product + get(3, f"{kind[0]}{2 * int(kind[1:])}"))
        elif base == "mul.hi" and kind in WIDE:
            product = get(1).astype(WIDE[kind]) * get(2).astype(WIDE[kind])
            put((product >> 8 * TYPES[kind].itemsize).astype(TYPES[kind]))
        elif root == "setp" and name.split(".")[1] in COMPARE and len(name.split(".")) == 3:
            put(COMPARE[name.split(".")[1]](get(1), get(2)))
        elif base == "selp":
            put(np.where(get(3, "pred"), get(1), get(2)))
        elif name == "bfi.b32":
            bits = (1 << get(4)) - 1 << get(3)
            put(get(2) & ~bits | get(1) << get(3) & bits)
        elif name == "bfe.u32":
            put(get(1) >> get(2) & (1 << get(3)) - 1)
        elif name in ("cvt.rn.f16x2.f32", "cvt.rn.bf16x2.f32"):
            low, high = (halves(get(i, "f32"), "b" in name).astype(np.uint32) for i in (2, 1))
            put(low | high << 16)
        elif name == "cvt.rn.bf16.f32":
            put(halves(get(1, "f32"), True))
        elif name == "cvt.f32.bf16":
            put((get(1, "u16").astype(np.uint32) << 16).view(np.float32))
        elif root == "cvt" and base.split(".")[-1] in TYPES:
            put(get(1).astype(TYPES[base.split(".")[-1]]))
        else:
            raise PtxError(f"unknown instruction {name}")

    def access(self, warp, name, operands, mask):
        parts = name.split(".")
        bits = int(parts[-1][1:])
        place, content = operands if parts[0] == "st" else operands[::-1]
        registers = re.findall(r"[%\w]+", content)
        address, offset = (re.findall(r"[%\w-]+", place) + ["0"])[:2]
        active = np.ones(32, bool) if mask is None else mask
        addresses = self.get(warp, address, "u64").astype(np.int64) + int(offset)
        threads, count = warp.threads, len(registers) * bits // 8
        if parts[0] == "ldmatrix":
            if bits != 16:
                raise PtxError(f"unknown instruction {name}")
            active, count = 8 * len(registers) > LANES, 16  # every lane names a row of 16 bytes
        elif parts[1] not in ("global", "shared"):
            raise PtxError(f"unknown instruction {name}")
        where = addresses[active]
        if (where % count).any():
            raise PtxError(f"{count} bytes at an address that is no multiple of them")
        if "shared" in parts:
            regions = [self.shared]
        else:
            tensors = {r.base >> 32: r for r in self.memory.regions.values()}
            regions = [tensors.get(number) for number in set((where >> 32).tolist())]
            if None in regions:
                raise PtxError("an address outside every tensor")
        loaded = np.zeros((32, count), np.uint8)
        kinds = [self.get(warp, r, f"b{bits}") for r in registers] if parts[0] == "st" else []
        stored = np.stack(kinds, 1).copy().view(np.uint8).reshape(32, -1) if kinds else None
        for region in regions:
            chosen = active & ((addresses >> 32) == (region.base >> 32))
            spots = (addresses[chosen] - region.base)[:, None] + np.arange(count)
            if spots.size and (spots.min() < 0 or spots.max() >= len(region.data) or not region.valid[spots].all()):
                raise PtxError("an address out of bounds")
            if parts[0] != "st" and not region.written[spots].all():
                raise PtxError("memory is read that nobody wrote")
            mine = threads[chosen][:, None]
            if parts[0] == "ldmatrix":  # who gets the bytes, not who names the row
                mine = threads[0] + 4 * (LANES[chosen][:, None] % 8) + np.arange(count) // 4
            for who, when in [(region.writer, region.wrote)] + [(region.reader, region.read)] * (parts[0] == "st"):
                limit = np.where(who[spots] // 32 == mine // 32, max(warp.since, self.since), self.since)
                if parts[0] == "st":  # the same bytes once more harm nobody: Triton lets several threads hold one value
                    limit = np.where(region.data[spots] == stored[chosen], self.clock + 1, limit)
                if ((who[spots] != mine) & (who[spots] != -1) & (when[spots] >= limit)).any():
                    raise PtxError("two threads at one address without a barrier between")
            if parts[0] == "st":
                region.data[spots], region.written[spots] = stored[chosen], True
                kept, given = region.data[spots], stored[chosen]
                # where a sum over lanes fuses its first product each lane has its own last bits: any of them will do
                close = region.single and count % 4 == 0 and np.allclose(kept.view("f4"), given.view("f4"), 1e-4, 0)
                if (kept != given).any() and not close:
                    raise PtxError("lanes store different values at one address")
                region.writer[spots], region.wrote[spots] = mine, self.clock
            else:
                loaded[chosen] = region.data[spots]
                region.reader[spots], region.read[spots] = mine, self.clock
        if parts[0] == "ldmatrix":
            for index, register in enumerate(registers):
                self.put(warp, register, loaded[8 * index : 8 * index + 8].reshape(32, 4).copy().view(np.uint32)[:, 0])
        elif parts[0] == "ld":
            for register, value in zip(registers, loaded.view(f"uint{bits}").T, strict=True):
                self.put(warp, register, value, mask)
