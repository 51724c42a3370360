"""System calls: one decorated function each, thin handlers by family over the kernel's objects.

Tour: ``registry.py`` holds the declarations, ``dispatch.py`` answers a trap, ``strace.py`` prints
calls, ``stubs.py`` lists what is answered ENOSYS and why. The other modules are the families; :func:`load`
imports them all, so that a new family needs no second place that names it.
"""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Imports every family, which declares its calls; then declares those that are absent."""
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        importlib.import_module(module.name)
    importlib.import_module(__name__ + ".stubs").declare_absent()
