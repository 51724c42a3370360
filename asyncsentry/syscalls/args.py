"""How a register becomes an argument: the types syscall handlers annotate their parameters with.

Each is an ``int`` to Python. What a type says is decoded once, by ``registry.py``, into the
dispatch row; strace prints by it. Guest memory is never read here: a handler does that in sight.
"""

from __future__ import annotations

from typing import NewType

Fd = NewType("Fd", int)
"""A descriptor: signed 32 bits (AT_FDCWD is negative)."""
Int = NewType("Int", int)
"""C ``int``: signed 32 bits."""
UInt = NewType("UInt", int)
"""C ``unsigned int``: the low 32 bits."""
Flags = NewType("Flags", int)
"""A bit set in 32 bits."""
Mode = NewType("Mode", int)
"""Permission bits, octal in strace."""
Long = NewType("Long", int)
"""C ``long`` or ``off_t``: signed 64 bits."""
Size = NewType("Size", int)
"""``size_t`` or ``unsigned long``: all 64 bits."""
Pointer = NewType("Pointer", int)
"""An address in guest memory."""
PathPointer = NewType("PathPointer", int)
"""The address of a NUL-terminated path."""
Buffer = NewType("Buffer", int)
"""The address of bytes whose length is the next parameter."""
Signal = NewType("Signal", int)
"""A signal number: signed 32 bits."""

EXPRESSIONS: dict[object, str] = {
    **dict.fromkeys((Fd, Int, Signal), "(({0} & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000"),
    **dict.fromkeys((UInt, Flags, Mode), "{0} & 0xFFFFFFFF"),
    **dict.fromkeys((Size, Pointer, PathPointer, Buffer), "{0}"),
    Long: "({0} ^ 0x8000000000000000) - 0x8000000000000000",
}
"""Python source that decodes register ``{0}`` (an unsigned 64-bit int) for each type."""
