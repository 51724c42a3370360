"""The x86-64 signal frame: asm/ucontext.h, asm/sigcontext.h, and the kernel's struct rt_sigframe."""

from __future__ import annotations

from struct import Struct

UC_FP_XSTATE = 0x1
UC_SIGCONTEXT_SS = 0x2
UC_STRICT_RESTORE_SS = 0x4

SIGCONTEXT_REGISTERS = (
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp",
    "rip", "eflags",
)  # fmt: skip
"""The first eighteen words of struct sigcontext, by our names of the registers."""

RT_SIGFRAME = Struct("<Q" "QQ" "QI4xQ" "18Q" "HHHH" "QQQQ" "Q" "64x" "Q")
"""pretcode; uc_flags, uc_link; uc_stack (sp, flags, size); eighteen registers; cs, gs, fs, ss; err, trapno,
oldmask, cr2; fpstate; reserved words; uc_sigmask. A siginfo_t follows, and then, aligned, the FP state."""
RT_SIGFRAME_SIZE = RT_SIGFRAME.size + 128
UCONTEXT_OFFSET = 8
SIGINFO_OFFSET = RT_SIGFRAME.size
FRAME_ALIGNMENT = 16
RED_ZONE_SIZE = 128
"""Bytes below the stack pointer that leaf functions use, x86-64 psABI 3.2.2."""

FP_XSTATE_MAGIC1 = 0x4650_5853
FP_XSTATE_MAGIC2 = 0x4650_5845
FPSTATE_ALIGNMENT = 64
FXSAVE_SIZE = 512
XSAVE_HEADER_SIZE = 64
FPX_SW_BYTES_OFFSET = 464
FPX_SW_BYTES = Struct("<IIQI")
"""magic1, extended_size, xfeatures, xstate_size."""

USER_CS = 0x33
USER_DS = 0x2B
EFLAGS_TF = 0x100
EFLAGS_DF = 0x400
EFLAGS_RF = 0x1_0000
EFLAGS_RESTORED = 0x4_0000 | EFLAGS_RF | 0x800 | EFLAGS_DF | EFLAGS_TF | 0x80 | 0x40 | 0x10 | 0x4 | 0x1
"""The bits sigreturn takes from the frame: AC RF OF DF TF SF ZF AF PF CF."""
