"""The outside of a sandbox: command-line verbs and, later, the control socket and the REPL."""
