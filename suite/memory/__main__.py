"""`python -m suite.memory push`, `pull` and `export`."""

import sys

from suite.memory.sharing import main, parser

__all__ = ["main", "parser"]

if __name__ == "__main__":
    sys.exit(main())
