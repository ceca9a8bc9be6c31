"""`python -m vidpipe`: the same as the command `vidpipe`."""

from vidpipe.cli import main

main()
