"""``python -m asyncsentry`` is the command line."""

import sys

from asyncsentry.cli import main

sys.exit(main())
