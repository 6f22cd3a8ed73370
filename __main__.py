"""``python -m headrace`` is the ``headrace`` command."""

import sys

from .daemon.cli.main import main

sys.exit(main())
