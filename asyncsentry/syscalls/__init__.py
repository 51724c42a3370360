"""System calls: one decorated function each, thin handlers by family over the kernel's objects.

Tour: ``registry.py`` holds the declarations, ``dispatch.py`` answers a trap, ``strace.py`` prints
calls, ``stubs.py`` lists what is answered ENOSYS and why. The other modules are the families; importing this
package imports them all.
"""

from asyncsentry.syscalls import kill as kill
from asyncsentry.syscalls import pipes as pipes
from asyncsentry.syscalls import polling as polling
from asyncsentry.syscalls import readwrite as readwrite
from asyncsentry.syscalls import signals as signals
from asyncsentry.syscalls import socket_receive as socket_receive
from asyncsentry.syscalls import socket_send as socket_send
from asyncsentry.syscalls import sockets as sockets
