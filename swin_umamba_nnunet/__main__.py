"""`python -m swin_umamba_nnunet VERB`, the same as `swin-umamba VERB`."""

import sys

from swin_umamba_nnunet.cli import main

if __name__ == "__main__":
    sys.exit(main())
