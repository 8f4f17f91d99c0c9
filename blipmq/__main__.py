"""`python -m blipmq` is `blipmqd`."""

from blipmq.cli.blipmqd import main

if __name__ == "__main__":
    main()
