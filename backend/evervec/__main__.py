"""`python -m evervec`: the same as `evervec`."""

from evervec.cli.main import main

if __name__ == "__main__":
    main()
