"""``python -m kdzoo`` is the command ``kdzoo``."""

from kdzoo.cli.main import main

if __name__ == "__main__":
    main()
