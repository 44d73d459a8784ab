"""`python -m ngrpo.doctor`."""

import sys

from ngrpo.doctor import main

sys.exit(main())
