"""Takes a deployment of the earlier system over to this one: see `--help`."""

import sys

from cleanup.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
