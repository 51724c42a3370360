"""Runs one of CPython's test modules and prints a JSON line per test: ``[id, outcome, detail]``. Runs in the guest.

Standard output carries nothing else: what the tests print goes to standard error.
"""

import importlib
import json
import os
import sys
import traceback
import unittest

records = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
sys.stdout = sys.stderr

from test import support  # noqa: E402
from test.support import os_helper  # noqa: E402

support.use_resources = []
support.verbose = False


class Recorder(unittest.TestResult):
    """Writes every outcome as soon as it is known, since a hang or a crash must not hide what went before."""

    def record(self, test, outcome, detail=""):
        print(json.dumps([test.id(), outcome, detail]), file=records)

    def startTest(self, test):  # noqa: N802 - unittest's name
        super().startTest(test)
        self.failures_before = len(self.failures) + len(self.errors)
        self.record(test, "started")

    def addSuccess(self, test):  # noqa: N802
        if len(self.failures) + len(self.errors) == self.failures_before:
            self.record(test, "passed")

    def addSkip(self, test, reason):  # noqa: N802
        self.record(test, "skipped", reason)

    def addExpectedFailure(self, test, err):  # noqa: N802
        self.record(test, "passed")

    def addFailure(self, test, err):  # noqa: N802
        super().addFailure(test, err)
        self.record(test, "failed", "".join(traceback.format_exception(*err))[-3000:])

    addError = addFailure  # noqa: N815

    def addSubTest(self, test, subtest, err):  # noqa: N802
        if err is not None:
            self.addFailure(test, err)


def main(name):
    """Runs the module's tests in a directory of their own."""
    with os_helper.temp_cwd():
        try:
            module = importlib.import_module(f"test.{name}")
        except unittest.SkipTest as reason:
            print(json.dumps([name, "skipped", str(reason)]), file=records)
            return
        suite = unittest.defaultTestLoader.loadTestsFromModule(module)
        suite.run(Recorder())


if __name__ == "__main__":
    main(sys.argv[1])
