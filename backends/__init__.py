"""The targets that ship with irc: one package per runtime behind the protocol of irc.target."""

if __name__ != "irc.backends":
    raise ImportError("import this package as irc.backends, not as backends")
