"""The command, however it is begun: `bulletproof`, or `python -m bulletproof`."""

import signal


def run() -> None:
    """Import the command line and run it; an interrupt of the imports ends us in silence, not in a traceback."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where a shell has it ignored
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from bulletproof.cli.main import main  # noqa: PLC0415  not before

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


if __name__ == "__main__":
    run()
