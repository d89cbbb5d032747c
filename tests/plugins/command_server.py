"""Runs commands, each in a process of its own that finds PyTorch and PyG imported: a fork costs no seconds.

Reads a line of JSON a command, ``{"arguments": [...], "cwd": ..., "to": FILE}``, writes what it printed to the file and
its exit code as a line.
"""

import json
import os
import sys


def main() -> None:
    import pytorch_lightning  # noqa: F401
    import torch_geometric  # noqa: F401

    import coset.cli

    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            sink = os.open(asked["to"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            os.chdir(asked["cwd"])
            sys.argv = ["coset", *asked["arguments"]]
            coset.cli.main()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
