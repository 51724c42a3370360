"""ELF executables: elf(5), linux/elf.h, linux/binfmts.h."""

import struct

ELFMAG = b"\x7fELF"
ELFCLASS64 = 2
ELFDATA2LSB = 1
ET_EXEC = 2
ET_DYN = 3
EM_X86_64 = 62

PT_LOAD = 1
PT_INTERP = 3
PT_PHDR = 6
PT_GNU_STACK = 0x6474E551

PF_X = 1
PF_W = 2
PF_R = 4

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
"""e_ident, e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum, …"""
PHDR = struct.Struct("<IIQQQQQQ")
"""p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align"""

BINPRM_BUF_SIZE = 256
MAX_ARG_STRLEN = 131072
MAX_ARG_STRINGS = 0x7FFFFFFF
ARG_MAX = 131072
"""What arguments may always take, however small RLIMIT_STACK is."""
