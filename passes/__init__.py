"""The passes that ship with irc: one technique per folder, one pass per file."""

if __name__ != "irc.passes":
    raise ImportError("import this package as irc.passes, not as passes")
