"""System calls that item processes do without: they take memory that counts under no limit of a process."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

# Of each machine: its number in a filter, that of `seccomp`, and those of shmget, semget, msgget,
# memfd_create and memfd_secret. What the first three make even outlives the process.
_NUMBERS = {
    "x86_64": (0xC000003E, 317, (29, 64, 68, 319, 447)),
    "aarch64": (0xC00000B7, 277, (194, 190, 186, 279, 447)),
}
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
# The processor may go on to guess: the filter is no wall against code that measures its guesses.
_SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
# Instructions of the filter.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_OFFSET_OF_NUMBER, _OFFSET_OF_MACHINE = 0, 4
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def deny() -> None:
    """Let these calls fail with ENOSYS, as in a kernel without them, in this process and all that it starts.

    Most programs then use a file. The processes gain no rights by programs that run as another user, either.
    A kernel without filters, and other machines, allow everything as before.
    """
    machine, seccomp, denied = _NUMBERS.get(platform.machine(), (0, 0, ()))
    if not denied:
        return
    instructions = [
        (_LOAD, 0, 0, _OFFSET_OF_MACHINE),
        # Past the others, to the permission.
        (_JUMP_IF_EQUAL, 0, len(denied) + 1, machine),
        (_LOAD, 0, 0, _OFFSET_OF_NUMBER),
        *((_JUMP_IF_EQUAL, len(denied) - n, 0, number) for n, number in enumerate(denied)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL | errno.ENOSYS),
    ]
    code = b"".join(struct.pack("HBBI", *each) for each in instructions)
    program = _Program(len(instructions), code)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.syscall(seccomp, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_SPEC_ALLOW, ctypes.byref(program))
