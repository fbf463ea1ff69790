"""`python -m sg3` is the `sg3` command."""

from sg3.cli import main

if __name__ == "__main__":
    main()
