"""How long a loop of machine code keeps one scheduler of a multiprocessor busy: a model, no GPU is asked.

Instructions of a warp issue in order, one per scheduler and cycle, held up by the stall counts and scoreboards that
ptxas wrote into each instruction, and by units that are still busy.  Latencies are assumptions and nothing is
calibrated on hardware: the figures compare versions of a kernel, and find loads that are waited for one by one.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

SCHEDULERS = 4  # of a multiprocessor; they share the way to memory
LOAD = 300  # cycles until a load from the L2 cache arrives
BEHIND = 32  # cycles of accesses that the way to memory queues

# opcode: (unit, cycles that one warp occupies it, cycles until the result is there)
_INTEGER = "IADD3", "LOP3", "SEL", "ISETP", "SHF", "LEA", "FMNMX", "FSEL", "PRMT", "VIMNMX", "FSETP", "MOV", "IABS"
_HALF_RATE = "IMAD", "HADD2", "HFMA2", "HMUL2", "I2FP"
_MEMORY = {"LDG": LOAD, "STG": 20, "LDS": 29, "STS": 20, "LDSM": 33, "SHFL": 24, "LDL": 40, "STL": 20}
UNITS = {"MUFU": ("exponential", 8, 26), "R2UR": ("uniform", 2, 6)}
UNITS |= dict.fromkeys(_INTEGER, ("integer", 2, 5)) | dict.fromkeys(_HALF_RATE, ("half", 2, 5))
UNITS |= {name: ("memory", 2, latency) for name, latency in _MEMORY.items()}


class Instruction(NamedTuple):
    """One of them, with the control bits that say what it waits for and what waits for it."""

    text: str
    stall: int
    result: int  # scoreboard that is set until the result is there; 7 is none
    operands: int  # the same until its operands have been read
    waits: int  # scoreboards, as bits, that have to be clear


@dataclass
class _Warp:
    ready: int
    at: int = 0
    clear: list[int] = field(default_factory=lambda: [0] * 6)  # when each scoreboard is
    ends: list[int] = field(default_factory=list)  # of turns


def decode(text: str, word: int) -> Instruction:
    """An instruction with the upper of its 64-bit words, as cuobjdump prints them (sm_70 and later)."""
    return Instruction(text, word >> 41 & 15, word >> 46 & 7, word >> 49 & 7, word >> 52 & 63)


def cycles(loop: list[Instruction], warps: int, turns: int = 10) -> float:
    """Cycles that one turn of a loop costs a scheduler with so many warps, once it is in its stride."""
    every = [[_Warp(ready=37 * s + 211 * w) for w in range(warps)] for s in range(SCHEDULERS)]
    busy: list[dict[str, int]] = [{} for _ in every]
    last, way, now = [0] * SCHEDULERS, 0, 0
    while any(len(warp.ends) < turns for row in every for warp in row):
        for s, units in enumerate(busy):
            for offset in range(1, warps + 1):
                warp = every[s][(last[s] + offset) % warps]
                instruction = loop[warp.at]
                if len(warp.ends) == turns or warp.ready > now or _held(warp, instruction.waits, now):
                    continue
                opcode, *modifiers = instruction.text.split()[0].split(".")
                unit, occupied, latency = UNITS.get(opcode, ("uniform", 2, 6) if opcode[0] == "U" else ("", 0, 10))
                queue = 24 if unit == "exponential" else 0  # three of them may wait
                if units.get(unit, 0) > now + queue or (unit == "memory" and way > now + BEHIND):
                    continue
                begin = max(units.get(unit, 0), now)
                if unit:
                    units[unit] = begin + occupied
                if unit == "memory":
                    way = begin = max(way, now) + (4 if "128" in modifiers else 2 if "64" in modifiers else 1)
                done = begin + latency
                if instruction.result < 6:
                    warp.clear[instruction.result] = max(warp.clear[instruction.result], done)
                if instruction.operands < 6:
                    read = done if unit == "exponential" else min(done, now + 14)
                    warp.clear[instruction.operands] = max(warp.clear[instruction.operands], read)
                warp.ready = now + max(instruction.stall, {"BAR": 20, "BRA": 8}.get(opcode, 1))
                warp.at = (warp.at + 1) % len(loop)
                warp.ends += [now] if warp.at == 0 else []
                last[s] = (last[s] + offset) % warps
                break
        now += 1
    # a turn across either end of the span is not counted: 3 to 9 % too much for the kernels here, with ten turns
    warps_of_all = [warp for row in every for warp in row]
    begin, end = max(warp.ends[0] for warp in warps_of_all), min(warp.ends[-1] for warp in warps_of_all)
    finished = sum(begin < at <= end for warp in warps_of_all for at in warp.ends)
    return (end - begin) * SCHEDULERS / finished


def _held(warp: _Warp, waits: int, now: int) -> bool:
    return any(waits >> board & 1 and warp.clear[board] > now for board in range(6))
