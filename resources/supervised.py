"""What the supervisor starts in place of a program: end what a killed one left behind, then become the program.

    python -m resources.supervised FOLDER COMMAND ...

A server that is killed cannot end its own workers: they would keep its port, or its place as the one daemon, from the
next one.
"""

import os
import sys

from resources.processes import MARK, PROGRAM, end, left_behind


def main(folder: str, command: list[str]) -> None:
    end(left_behind(os.environ[MARK], os.environ[PROGRAM]))
    os.chdir(folder)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
