"""Guest address spaces: what is mapped where, copies in and out, and the ELF loader."""
