"""The entry of the archive that is sent with a job. Any Python must be able to read this file."""

import sys

if sys.version_info < (3, 8):
    sys.exit(
        "elsewhere: the agent needs Python 3.8 or newer and %s is %d.%d; set the option `python`"
        % (sys.executable, sys.version_info[0], sys.version_info[1])
    )

from elsewhere.agent.boot import main

main()
