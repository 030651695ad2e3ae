"""`mooraged`: what an interpreter runs. All that the program does stands in `program`."""

import gc


def main() -> None:
    """Load the program and run it; ends the process.

    What is loaded stays for good. A collector that looks through it again and again while it
    grows finds nothing, and takes an eighth of the start.
    """
    gc.disable()
    from moorage_daemon.program import main as run  # not above: it is what is loaded

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
