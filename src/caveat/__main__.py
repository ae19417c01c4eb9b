"""`python -m caveat` is the command `caveat`."""

import sys

# `-m` puts the working directory before all libraries: in a stranger's folder a typer.py would run in place of ours
if __name__ == "__main__" and not sys.flags.safe_path and sys.path:
    del sys.path[0]

from caveat.cli.main import main

if __name__ == "__main__":
    main()
