"""`python -m ngrpo` is `ngrpo`."""

from ngrpo.cli import main

main()
