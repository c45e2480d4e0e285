"""``python -m forecaster`` is the command ``forecaster``."""

import sys

from forecaster.cli.main import main

sys.exit(main())
