"""llama.cpp's own server as a program of its own: its end waits for ever at times, so it is ended from outside.

    python -m resources.llama_server FILE THREADS

Says where it listens, on the loopback address, or why it does not; ends as soon as its standard input does.
"""

import os
import sys


def main() -> None:
    import xllamacpp

    file, threads = sys.argv[1:]
    wanted = xllamacpp.CommonParams()
    wanted.model.path = file
    wanted.offline = True
    wanted.verbosity = -1
    wanted.warmup = False
    wanted.ui = False
    wanted.force_pure_content_parser = True  # an answer is text: no tool call is taken out of it
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = int(threads)
    try:
        server = xllamacpp.Server(wanted)
    except RuntimeError as error:
        print("refused", " ".join(str(error).split())[:300], flush=True)
    else:
        print("listens", server.listening_address, flush=True)
        sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
