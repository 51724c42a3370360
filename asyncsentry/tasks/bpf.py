"""Classic BPF as seccomp(2) has it: checking a program, and running it over one system call.

A program is a table of constants, never Python code, so it can be walked and copied. See
Linux's Documentation/networking/filter.rst and bpf_check_classic().
"""

from __future__ import annotations

from typing import NamedTuple

from asyncsentry.abi import seccomp_h as abi
from asyncsentry.errnos import EINVAL

_MASK = 0xFFFFFFFF
_DATA_SIZE = abi.SECCOMP_DATA.size
_FIXED_BYTES = 8
"""Number and architecture: what comes after them differs from call to call."""

_ALU = (abi.BPF_ADD, abi.BPF_SUB, abi.BPF_MUL, abi.BPF_DIV, abi.BPF_OR, abi.BPF_AND, abi.BPF_LSH, abi.BPF_RSH,
        abi.BPF_XOR)  # fmt: skip
_CONDITIONS = (abi.BPF_JEQ, abi.BPF_JGT, abi.BPF_JGE, abi.BPF_JSET)
_LOADS = (abi.BPF_IMM, abi.BPF_MEM, abi.BPF_LEN)
_ALLOWED = frozenset((
    *(abi.BPF_LD | mode for mode in (*_LOADS, abi.BPF_ABS)), *(abi.BPF_LDX | mode for mode in _LOADS),
    abi.BPF_ST, abi.BPF_STX, *(abi.BPF_ALU | op | source for op in _ALU for source in (abi.BPF_K, abi.BPF_X)),
    abi.BPF_ALU | abi.BPF_NEG, abi.BPF_JMP | abi.BPF_JA,
    *(abi.BPF_JMP | op | source for op in _CONDITIONS for source in (abi.BPF_K, abi.BPF_X)),
    abi.BPF_RET | abi.BPF_K, abi.BPF_RET | abi.BPF_A, abi.BPF_MISC | abi.BPF_TAX, abi.BPF_MISC | abi.BPF_TXA,
))  # fmt: skip


class Instruction(NamedTuple):
    """One instruction."""

    code: int
    if_true: int
    if_false: int
    constant: int


class Verdict(NamedTuple):
    """What a program returned, and whether other arguments could have made it return something else."""

    value: int
    depends_on_arguments: bool


class Program:
    """A checked program."""

    __slots__ = ("instructions",)

    def __init__(self, data: bytes) -> None:
        """Reads and checks instructions that a guest wrote; EINVAL if they are not a program."""
        self.instructions = [Instruction(*row) for row in abi.SOCK_FILTER.iter_unpack(data)]
        if not 0 < len(self.instructions) <= abi.BPF_MAXINSNS:
            raise EINVAL("no program, or too long")
        for position, instruction in enumerate(self.instructions):
            _check(instruction, len(self.instructions) - position - 1)
        if self.instructions[-1].code & 7 != abi.BPF_RET:
            raise EINVAL("a program ends by returning")

    def run(self, words: tuple[int, ...]) -> Verdict:
        """Runs over a ``struct seccomp_data`` given as sixteen 32-bit words. Jumps go forward, so it ends."""
        accumulator = index = position = 0
        memory = [0] * abi.BPF_MEMWORDS
        depends = False
        while True:
            code, if_true, if_false, constant = self.instructions[position]
            position += 1
            kind = code & 7
            if kind == abi.BPF_LD and code & 0xE0 == abi.BPF_ABS:
                depends = depends or constant >= _FIXED_BYTES
                accumulator = words[constant >> 2]
            elif kind == abi.BPF_JMP:
                if code == abi.BPF_JMP | abi.BPF_JA:
                    position += constant
                else:
                    operand = index if code & abi.BPF_X else constant
                    position += if_true if _holds(code & 0xF0, accumulator, operand) else if_false
            elif kind == abi.BPF_RET:
                return Verdict(accumulator if code & abi.BPF_A else constant, depends)
            elif kind == abi.BPF_ALU:
                operand = index if code & abi.BPF_X else constant
                if operand == 0 and code & 0xF0 == abi.BPF_DIV:
                    return Verdict(0, depends)  # the kernel ends a program that divides by 0
                accumulator = _calculate(code & 0xF0, accumulator, operand) & _MASK
            elif kind == abi.BPF_MISC:
                accumulator, index = (index, index) if code & abi.BPF_TXA else (accumulator, accumulator)
            elif kind == abi.BPF_ST:
                memory[constant] = accumulator
            elif kind == abi.BPF_STX:
                memory[constant] = index
            else:
                mode = code & 0xE0
                value = memory[constant] if mode == abi.BPF_MEM else _DATA_SIZE if mode == abi.BPF_LEN else constant
                accumulator, index = (value, index) if kind == abi.BPF_LD else (accumulator, value)


def _check(instruction: Instruction, following: int) -> None:
    """EINVAL for an instruction that is unknown, reaches outside, or cannot work. ``following`` come after it."""
    code, if_true, if_false, constant = instruction
    if code not in _ALLOWED:
        raise EINVAL(f"unknown instruction {code:#x}")
    kind, mode, operation = code & 7, code & 0xE0, code & 0xF0
    if kind == abi.BPF_JMP:
        reach = constant if operation == abi.BPF_JA else max(if_true, if_false)
        if reach >= following:
            raise EINVAL("a jump out of the program")
    elif kind == abi.BPF_LD and mode == abi.BPF_ABS:
        if constant & 3 or constant >= _DATA_SIZE:
            raise EINVAL("a load from outside the data")
    elif kind in (abi.BPF_ST, abi.BPF_STX) or (kind in (abi.BPF_LD, abi.BPF_LDX) and mode == abi.BPF_MEM):
        if constant >= abi.BPF_MEMWORDS:
            raise EINVAL("no such word of memory")
    elif kind == abi.BPF_ALU and not code & abi.BPF_X and (
            (operation == abi.BPF_DIV and not constant)
            or (operation in (abi.BPF_LSH, abi.BPF_RSH) and constant >= 32)):
        raise EINVAL("a division by 0 or too wide a shift")


def _holds(condition: int, accumulator: int, operand: int) -> bool:
    if condition == abi.BPF_JEQ:
        return accumulator == operand
    if condition == abi.BPF_JGT:
        return accumulator > operand
    if condition == abi.BPF_JGE:
        return accumulator >= operand
    return bool(accumulator & operand)


def _calculate(operation: int, accumulator: int, operand: int) -> int:
    if operation == abi.BPF_NEG:
        return -accumulator
    if operation == abi.BPF_ADD:
        return accumulator + operand
    if operation == abi.BPF_SUB:
        return accumulator - operand
    if operation == abi.BPF_MUL:
        return accumulator * operand
    if operation == abi.BPF_DIV:
        return accumulator // operand
    if operation == abi.BPF_OR:
        return accumulator | operand
    if operation == abi.BPF_AND:
        return accumulator & operand
    if operation == abi.BPF_XOR:
        return accumulator ^ operand
    return accumulator << (operand & 31) if operation == abi.BPF_LSH else accumulator >> (operand & 31)
