"""Builds the one C extension: compiles the stub, embeds its image, and hands cffi the rest (API mode).

Used by ``setup.py`` (``cffi_modules``); rebuild in place with ``python setup.py build_ext --inplace``. Warnings are
errors here and in CI.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SYSTRAP = HERE / "systrap"

STUB_FLAGS = (
    "-O2 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-stack-protector -fcf-protection=none "
    "-mgeneral-regs-only -fPIE -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns -nostdlib -static "
    "-no-pie -Wl,-Ttext-segment=0x7ff000000000 -Wl,--build-id=none -Wl,-z,noexecstack -s"
).split()

RECORD = """
struct slot_record {
    char *memory; uint64_t guest_base; uint64_t frame_offset; uint64_t notification;
    uint64_t number; uint64_t arguments[6]; uint64_t address; uint64_t trapno; uint64_t error;
    int32_t code; uint32_t signo; int32_t tid; uint32_t call_count; uint32_t issued;
    uint32_t kind; uint8_t taken; uint8_t hot; uint8_t on_futex;
};
struct hub_event { uint64_t id; int32_t tid; int32_t slot; int64_t number; uint64_t arguments[6]; };
"""

DECLARATIONS = RECORD + """
struct hub;
struct hub *hub_new(void);
void hub_free(struct hub *hub);
void hub_listen(struct hub *hub, int listener);
int hub_hand_over(struct hub *hub, int on);
struct slot_record *hub_slot(struct hub *hub, int slot);
int hub_attach_chunk(struct hub *hub, int fd, int first, uint64_t guest_base);
void hub_detach_chunk(struct hub *hub, int first);
void hub_bind(struct hub *hub, int slot, int tid);
void hub_unbind(struct hub *hub, int slot);
int hub_spin(struct hub *hub, uint64_t cycles, uint64_t wake_cycles);
int hub_sleep(struct hub *hub);
void slot_reset(struct hub *hub, int slot);
void hub_answer(struct hub *hub, int slot, int action, uint32_t spin_us);
void hub_answer_result(struct hub *hub, int slot, uint64_t result, uint32_t spin_us);
void hub_park(struct hub *hub, int slot);
uint32_t hub_take_wakes(struct hub *hub);
int hub_doorbell(struct hub *hub, struct hub_event *event);
void hub_tie(struct hub *hub, int slot, int here);
void hub_adopt(struct hub *hub, int slot, int tid, uint64_t id);
int hub_reply(struct hub *hub, uint64_t id, int error, int go_on);
int hub_lend(struct hub *hub, uint64_t id, int fd, int number);
int slot_add_call(struct hub *hub, int slot, uint64_t call, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                  uint64_t e, uint64_t f, int lends);
int slot_calls_done(struct hub *hub, int slot);
int64_t slot_call_result(struct hub *hub, int slot, uint32_t index);
void slot_get_registers(struct hub *hub, int slot, uint64_t *registers);
void slot_set_registers(struct hub *hub, int slot, const uint64_t *registers);
void slot_set_result(struct hub *hub, int slot, uint64_t result);
int hub_take_template(struct hub *hub, int slot);
void slot_build_frame(struct hub *hub, int slot);
uint32_t slot_get_fpstate(struct hub *hub, int slot, char *image);
int slot_set_fpstate(struct hub *hub, int slot, const char *image, uint32_t size);
void slot_copy_frame(struct hub *hub, int from, int to);
#define COPY_BUFFER_SIZE ...
uint64_t hub_cycles_per_us(struct hub *hub);
int64_t vm_read(char *buffer, int pid, uint64_t address, uint64_t count);
int64_t vm_write(int pid, uint64_t address, const char *data, uint64_t count);
int64_t vm_write_from_file(char *buffer, int pid, uint64_t address, uint64_t count, int fd, int64_t offset);
int spawn_stub(int stub_fd, int chunk_fd, int ready_fd, int traced);
int pidfd_open_(int pid);
int pidfd_getfd_(int pidfd, int fd);
int thread_kill(int tgid, int tid, int signo);
extern const unsigned char stub_image[];
extern const unsigned int stub_image_size;
"""

CONSTANTS = (
    "STUB_BASE STUB_TEXT_SIZE SLOTS_BASE SLOTS_END SLOT_SIZE SLOTS_PER_CHUNK CHUNK_SIZE NEWBORN_STACK_OFFSET MAX_CALLS "
    "LENT_FD LENT_SLOTS_FD LISTENER_FD CHUNK_FD READY_FD INTERRUPT_SIGNAL DOORBELL_NR CALL_FORK CALL_CLONE "
    "CALL_COMPARE_EXCHANGE"
).split()


def compile_stub() -> bytes:
    """Gives the stub as an ELF image."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "stub"
        subprocess.run(["cc", *STUB_FLAGS, "-o", str(target), str(SYSTRAP / "stub.c")], check=True)
        return target.read_bytes()


def ffibuilder() -> FFI:
    """Describes the extension ``asyncsentry.platforms._native`` to cffi."""
    ffi = FFI()
    ffi.cdef(DECLARATIONS + "".join(f"#define {name} ...\n" for name in CONSTANTS))
    image = compile_stub()
    embedded = f"const unsigned char stub_image[] = {{{','.join(map(str, image))}}};\n"
    embedded += f"const unsigned int stub_image_size = {len(image)};\n"
    ffi.set_source(
        "asyncsentry.platforms._native",
        f"#include <stdint.h>\n{RECORD}\n#include \"host.c\"\n{embedded}",
        include_dirs=[str(SYSTRAP)],
        depends=[str(path) for path in sorted(SYSTRAP.glob("*.[ch]"))],
        extra_compile_args="-O2 -Wall -Wextra -Werror -Wno-unused-function -Wno-missing-field-initializers".split(),
    )
    return ffi

