"""The command line's commands, by what they are for.

Heavy imports stay inside the commands that need them, so that ``--help`` and ``decode`` start at
once.
"""
