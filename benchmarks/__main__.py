"""Compare methods on a data set: ``python -m benchmarks NAME``."""

import sys

OF_OUTPUTS = ("multi-label", "multi-target")

if sys.argv[1:2] and sys.argv[1] in OF_OUTPUTS:
    from benchmarks.several_outputs import main

    main(sys.argv[1], sys.argv[2:])
elif sys.argv[1:2] == ["slu"]:
    from benchmarks import slu

    slu.main(sys.argv[2:])
else:
    from benchmarks.command import app

    app(prog_name="python -m benchmarks")
