"""The exit codes."""

DONE, RAISED, WRONG, FAILED, INTERRUPTED = 0, 1, 2, 3, 130
